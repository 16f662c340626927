"""Damaged checkpoints: noticed, named, moved aside, and the run goes on from an older whole one; locks of folders."""

import gc
import json
import logging
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from regression_task import OPTIMISER, train
from tiny_runs import environment

from ghn_jax.runs import lock
from ghn_jax.runs.checkpoints import Checkpoints, best_step, checkpoint_folder, restore, saved_steps
from ghn_jax.runs.lock import LOCK_FILE, folder_lock
from ghn_jax.runs.records import DamagedCheckpointError, read_record

# tensorstore's callbacks come too late where orbax gives up reading: "Event loop is closed", which Python cannot raise.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STEPS, LONGER = 3, 5
LIKE = (jnp.zeros(3), OPTIMISER.init(jnp.zeros(3)))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collects what such a callback left while the filter holds: at the end of the session it would be an error."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, STEPS)
    return folder


@pytest.fixture(scope="module")
def longer(whole: pathlib.Path) -> dict[str, str] | None:
    """Digests of the state after more updates without any damage."""
    folder = whole.with_name("longer")
    shutil.copytree(whole, folder)
    train(folder, LONGER)
    return read_record(checkpoint_folder(folder, LONGER)).digests


def files_of(checkpoint: pathlib.Path, needed: bool = False) -> list[pathlib.Path]:
    """All files, or those without which a checkpoint cannot be restored."""
    patterns = ("record/metadata", "state/_METADATA", "state/manifest.ocdbt", "state/d/*") if needed else ("**/*",)
    return sorted(path for pattern in patterns for path in checkpoint.glob(pattern) if path.is_file())


def damage(path: pathlib.Path, rng: random.Random) -> str:
    """One of the things that happen to files; says which."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(("removed", "cut", "flipped", "zeroed", "noise")) if content else "removed"
    place = rng.randrange(len(content)) if content else 0
    if kind == "removed":
        path.unlink()
        return f"{path} removed"
    if kind == "cut":
        del content[place:]
    elif kind == "flipped":
        content[place] ^= 1 << rng.randrange(8)
    else:
        end = min(len(content), place + 64)
        content[place:end] = bytes(end - place) if kind == "zeroed" else rng.randbytes(end - place)
    path.write_bytes(content)
    return f"{path} {kind} at {place}"


def check_damaged(
    seeds: range, whole: pathlib.Path, longer: dict[str, str], folder: pathlib.Path, log: pytest.LogCaptureFixture
) -> int:
    """Damages the newest checkpoint again and again; how often the run had to fall back to an older one."""
    fallen_back = 0
    for seed in seeds:
        rng, run = random.Random(seed), folder / str(seed)
        shutil.copytree(whole, run)
        newest = checkpoint_folder(run, STEPS)
        what = damage(rng.choice(files_of(newest, needed=seed % 2 == 0)), rng)
        log.clear()
        train(run, LONGER)
        assert read_record(checkpoint_folder(run, LONGER)).digests == longer, what
        if "damaged checkpoint" in log.text:
            fallen_back += 1
            assert str(newest) in log.text, what
            assert f"goes on from the newest whole checkpoint, that of {STEPS - 1} updates" in log.text, what
            assert [path.name for path in (run / "damaged").iterdir()] == [str(STEPS)], what
        shutil.rmtree(run)
    return fallen_back


def test_a_run_goes_on_from_an_older_checkpoint(
    whole: pathlib.Path, longer: dict[str, str], tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert check_damaged(range(12), whole, longer, tmp_path, caplog) >= 5


@pytest.mark.slow
def test_no_damage_of_a_checkpoint_changes_a_run(
    whole: pathlib.Path, longer: dict[str, str], tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Damage to files that orbax does not need is no reason to fall back: what was read is what was written."""
    found = check_damaged(range(1000, 1400), whole, longer, tmp_path, caplog)
    print(f"{found} of 400 damages made the run fall back; the others concern nothing that is read")
    assert found > 150


def test_each_array_the_position_and_the_metric_are_checked(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    record = checkpoint_folder(run, STEPS) / "record" / "metadata"
    data = json.loads(record.read_text())
    for change in (
        lambda content: content["rest"].update(position=7),
        lambda content: content.update(metric=0.5),
        lambda content: content["digests"].popitem(),
    ):
        changed = json.loads(json.dumps(data))
        change(changed["content"])
        record.write_text(json.dumps(changed))
        with pytest.raises(DamagedCheckpointError, match="record/metadata is not as it was written"):
            restore(run, STEPS, LIKE)
        with pytest.raises(DamagedCheckpointError, match="record/metadata is not as it was written"):
            best_step(run)
    shutil.rmtree(checkpoint_folder(run, STEPS))
    other = Checkpoints(run)
    state, rest = restore(whole, STEPS, LIKE)
    other.save(STEPS, jax.tree.map(lambda leaf: leaf + 1, state), rest)
    other.close()
    record.write_text(json.dumps(data))  # whole, but of other arrays
    with pytest.raises(DamagedCheckpointError, match=r"is not as it was written: state\[0\] and 3 more"):
        restore(run, STEPS, LIKE)


def test_without_a_whole_checkpoint_a_run_does_not_begin_anew(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for step in saved_steps(run):
        for path in files_of(checkpoint_folder(run, step)):
            path.write_bytes(b"")
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=r"no checkpoint is whole: .*/3/record/metadata .*/2/record/metadata"):
        train(run, LONGER)
    assert sorted(run.rglob("*")) == before


def test_an_older_checkpoint_without_its_record_does_not_stop_a_run(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (checkpoint_folder(run, STEPS - 1) / "record" / "metadata").write_bytes(b"\xff")
    train(run, LONGER)
    assert [path.name for path in (run / "damaged").iterdir()] == [str(STEPS - 1)]


def test_a_checkpoint_of_another_task_is_told_from_a_damaged_one(whole: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"3 is of another task: its state\['w'\] is missing") as raised:
        restore(whole, STEPS, {"w": jnp.zeros(2)})
    assert not isinstance(raised.value, DamagedCheckpointError)
    with pytest.raises(ValueError, match=r"its state\[0\] is float32 3, expected is float32 4"):
        restore(whole, STEPS, (jnp.zeros(4), LIKE[1]))


def test_checkpoints_of_version_0_1_are_read_with_a_warning(
    whole: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They had the position and the metric in items of their own, and no digests."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    newest = checkpoint_folder(run, STEPS)
    record = read_record(newest)
    shutil.rmtree(newest / "record")
    for item, name, content in (("rest", "metadata", record.rest), ("metrics", "metrics", {"metric": 0.25})):
        (newest / item).mkdir()
        (newest / item / name).write_text(json.dumps(content))
    state, rest = restore(run, STEPS, LIKE)
    assert rest == {"position": STEPS}
    np.testing.assert_array_equal(state[0], restore(whole, STEPS, LIKE)[0][0])
    assert "was written without digests" in caplog.text
    assert best_step(run) == STEPS


HOLDER = """
import pathlib, sys, time
from ghn_jax.runs.lock import folder_lock
with folder_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_by_one_process_and_a_dead_one_holds_nothing(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"is in use by process {holder.pid} on {socket.gethostname()}"):
            train(tmp_path, STEPS)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
        holder.kill()
    train(tmp_path, STEPS)
    assert f"process {holder.pid} on {socket.gethostname()} ended without giving it free" in caplog.text
    assert not (tmp_path / LOCK_FILE).exists()
    caplog.clear()
    with folder_lock(tmp_path), pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
        train(tmp_path, STEPS)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("holder", "is_free"),
    [
        ("", True),
        ('{"pid": 4', True),
        ({"pid": 2**22 + 1, "machine": "mine"}, True),
        ({"pid": os.getppid(), "machine": "mine"}, False),
        ({"pid": 2**22 + 1, "machine": "another"}, False),
    ],
)
def test_where_a_file_system_has_no_locks_the_file_decides(
    holder: str | dict, is_free: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "machine_id", lambda: "mine")
    (tmp_path / LOCK_FILE).write_text(holder if isinstance(holder, str) else json.dumps({**holder, "host": "there"}))
    if is_free:
        with folder_lock(tmp_path):
            assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    else:
        with pytest.raises(ValueError, match="on there"), folder_lock(tmp_path):
            pass


logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells at length about files that it misses
