"""Files and folders appear whole or not at all, whenever their writer is killed; caches repair themselves."""

import contextlib
import logging
import os
import pathlib
import subprocess
import sys
import time
from typing import BinaryIO

import kill_points
import pytest

from ghn_jax import files
from ghn_jax.files import atomic_file, atomic_folder, cache_folder, cached, whole_folder

FOLDERS_WITHOUT_SWAP = (False, True)


def tree(folder: pathlib.Path) -> dict[str, str]:
    """Text of all files of a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


KILLED_FILE = """
import pathlib, shutil, sys
import kill_points
from ghn_jax.files import atomic_file

place = pathlib.Path("place")
final = place / "name.txt"
contents = {old!r}, "new " * 10_000

def prepare():
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if contents[0]:
        final.write_text(contents[0])

def act():
    with atomic_file(final) as new, new.open("w") as file:
        file.write(contents[1][:100])
        file.flush()
        sys.audit(kill_points.STEP)
        file.write(contents[1][100:])

def check(number):
    found = final.read_text() if final.exists() else ""
    assert found in contents, (number, found[:50])
    act()
    assert final.read_text() == contents[1]
    assert [path.name for path in place.iterdir()] == ["name.txt"], (number, list(place.iterdir()))

print(kill_points.kill_everywhere(prepare, act, check))
"""


@pytest.mark.parametrize("old", ["", "old"])
def test_a_file_is_whole_wherever_its_writer_is_killed(tmp_path: pathlib.Path, old: str) -> None:
    (operations,) = kill_points.run(KILLED_FILE.format(old=old), tmp_path)
    assert int(operations) >= 6  # open, half-way, open and fsync, rename, open and fsync the folder


KILLED_FOLDER = """
import pathlib, shutil, sys
import kill_points
from ghn_jax import files

if {without_swap}:
    files._swap = lambda one, other: False
else:
    swap = files._swap
    files._swap = lambda one, other: (sys.audit(kill_points.STEP), swap(one, other))[1]
place = pathlib.Path("place")
final = place / "name"
contents = [{old!r}, {{"a": "new " * 1000, "inner/b": "new"}}]

def tree(folder):
    return {{str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}}

def fill(folder, content):
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

def prepare():
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    fill(final, contents[0])

def act():
    with files.atomic_folder(final) as new:
        fill(new, contents[1])

def check(number):
    if not {without_swap} and contents[0]:
        assert final.is_dir(), number
    hidden = place / ".name.ghn_jax-replaced"
    assert not hidden.exists() or tree(hidden) in contents, (number, sorted(tree(hidden)))
    found = tree(files.whole_folder(final))
    assert found in contents, (number, sorted(found))
    act()
    assert tree(final) == contents[1]
    assert [path.name for path in place.iterdir()] == ["name"], (number, list(place.iterdir()))

print(kill_points.kill_everywhere(prepare, act, check))
"""


@pytest.mark.parametrize("without_swap", FOLDERS_WITHOUT_SWAP)
@pytest.mark.parametrize("old", [{}, {"a": "old", "c": "old", "other/d": "old"}])
def test_a_folder_is_whole_wherever_its_writer_is_killed(
    tmp_path: pathlib.Path, old: dict[str, str], without_swap: bool
) -> None:
    (operations,) = kill_points.run(KILLED_FOLDER.format(old=old, without_swap=without_swap), tmp_path)
    assert int(operations) >= 13


def test_a_killed_replacement_is_undone_even_after_later_ones(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renamings of a system that cannot swap, then read, written and read again."""
    monkeypatch.setattr(files, "_swap", lambda one, other: False)
    final, hidden = tmp_path / "name", tmp_path / ".name.ghn_jax-replaced"
    hidden.mkdir()
    (hidden / "a").write_text("old")
    assert tree(whole_folder(final)) == {"a": "old"}
    assert not hidden.exists()
    hidden.mkdir()  # killed before it could remove the folder that it had replaced
    (hidden / "a").write_text("older")
    assert tree(whole_folder(final)) == {"a": "old"}
    with atomic_folder(final) as new:
        (new / "a").write_text("new")
    assert tree(tmp_path) == {"name/a": "new"}


def test_a_folder_that_cannot_get_its_name_back_is_read_where_it_lies(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / ".name.ghn_jax-replaced"
    hidden.mkdir()

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "rename", refuse)
    assert whole_folder(tmp_path / "name") == hidden
    assert whole_folder(tmp_path / "other") == tmp_path / "other"


def test_folders_are_swapped_here_in_one_step(tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    if sys.platform != "linux":
        pytest.skip("only Linux has renameat2")
    assert files._swap(tmp_path / "one", tmp_path / "other")
    assert tree(tmp_path) == {"one/a": "other", "other/a": "one"}
    assert not files._swap(tmp_path / "one", tmp_path / "absent")
    assert tree(tmp_path) == {"one/a": "other", "other/a": "one"}


READING = """
import pathlib, sys
from ghn_jax.files import whole_folder
final, ended, reads = pathlib.Path("name"), pathlib.Path("ended"), 0
print("ready", flush=True)
while not ended.exists():
    folder = whole_folder(final)
    reads += 1
    assert folder.is_dir() or whole_folder(final).is_dir(), "there was no folder"
print(reads)
"""


@pytest.mark.parametrize("without_swap", FOLDERS_WITHOUT_SWAP)
def test_a_reader_beside_a_writer_always_finds_a_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, without_swap: bool
) -> None:
    if without_swap:
        monkeypatch.setattr(files, "_swap", lambda one, other: False)
    (tmp_path / "name").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(kill_points.ROOT)}
    reader = subprocess.Popen(
        [sys.executable, "-c", READING], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for number in range(300):
            with atomic_folder(tmp_path / "name") as new:
                (new / "a").write_text(str(number))
        (tmp_path / "ended").touch()
        reads = int(reader.stdout.read())
    assert reader.returncode == 0
    assert reads > 10
    assert tree(tmp_path / "name") == {"a": "299"}


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(RuntimeError, match="half-way"):
        _write_half(atomic_file(tmp_path / "file"), "")
    with pytest.raises(RuntimeError, match="half-way"):
        _write_half(atomic_folder(tmp_path / "folder"), "a")
    assert tree(tmp_path) == before
    with pytest.raises(ValueError, match=r"folder is a folder, where a file is to be written"):
        atomic_file(tmp_path / "folder").__enter__()
    with pytest.raises(ValueError, match=r"file is a file, where a folder is to be written"):
        atomic_folder(tmp_path / "file").__enter__()
    assert tree(tmp_path) == before


def _write_half(target: contextlib.AbstractContextManager[pathlib.Path], name: str) -> None:
    with target as new:
        (new / name).write_text("new")
        raise RuntimeError("half-way")


def test_names_links_and_permissions(tmp_path: pathlib.Path) -> None:
    """The suffix is kept while writing, folders on the way are made, links stay links, modes are the usual ones."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "disk" / "real.json")
    (tmp_path / "linked").symlink_to(tmp_path / "disk" / "folder")
    with atomic_file(tmp_path / "link.json") as new:
        assert new.suffix == ".json"
        new.write_text("a")
    for text in ("b", "c"):
        with atomic_folder(tmp_path / "linked") as new:
            (new / "x").write_text(text)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "linked").is_symlink()
    assert tree(tmp_path / "disk") == {"real.json": "a", "folder/x": "c"}
    (tmp_path / "plain").touch()
    (tmp_path / "made").mkdir()
    assert (tmp_path / "disk" / "real.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "disk" / "folder").stat().st_mode == (tmp_path / "made").stat().st_mode
    long = tmp_path / "new" / ("n" * 250)
    with atomic_file(long) as new:
        new.write_text("d")
    assert long.read_text() == "d"


def test_only_what_nobody_writes_any_more_is_cleared_away(tmp_path: pathlib.Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    machine, other = files._machine(), "0" * 8
    dead = tmp_path / f".a.ghn_jax-{machine}-{child.pid}-01234567.txt"
    living = tmp_path / f".a.ghn_jax-{machine}-{os.getppid()}-01234567.txt"
    elsewhere = tmp_path / f".a.ghn_jax-{other}-{child.pid}-01234567.txt"
    old = tmp_path / f".a.ghn_jax-{other}-{child.pid}-76543210"
    mine = tmp_path / ".a.ghn_jax-notes.txt"
    for file in (dead, living, elsewhere, mine):
        file.write_text("")
    old.mkdir()
    (old / "part").write_text("")
    two_days_ago = time.time() - 2 * 24 * 3600
    for file in (old / "part", old, mine):
        os.utime(file, (two_days_ago, two_days_ago))
    with atomic_file(tmp_path / "b") as new:
        new.write_text("")
    assert set(tmp_path.iterdir()) == {living, elsewhere, mine, tmp_path / "b"}


def write_text(file: BinaryIO, value: str) -> None:
    file.write(value.encode())


def read_text(file: BinaryIO) -> str:
    return file.read().decode()


def cached_text(path: pathlib.Path, value: str) -> tuple[str, bool]:
    """The cached text, and whether it was made."""
    made: list[str] = []

    def make() -> str:
        made.append(value)
        return value

    return cached(path, make, write_text, read_text), bool(made)


def test_a_cached_value_is_made_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "entry"
    assert cached_text(path, "value") == ("value", True)
    assert cached_text(path, "other") == ("value", False)
    assert [file.name for file in path.parent.iterdir()] == ["entry"]


def test_every_damage_to_a_cache_entry_is_noticed_and_repaired(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "entry"
    cached_text(path, "value")
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole + b"x", bytes(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        assert cached_text(path, "value") == ("value", True)
        assert path.read_bytes() == whole
    assert sum("is damaged" in record.message for record in caplog.records) == len(damaged)
    path.unlink()
    os.mkfifo(path)
    assert cached_text(path, "value") == ("value", True)
    assert path.read_bytes() == whole
    assert "it is no regular file" in caplog.text


KILLED_CACHE = """
import pathlib, shutil, sys
import kill_points
from ghn_jax.files import cached

place = pathlib.Path("place")
final = place / "entry"

def write(file, value):
    file.write(value[:5])
    file.flush()
    sys.audit(kill_points.STEP)
    file.write(value[5:])

def entry(make):
    return cached(final, make, write, lambda file: file.read())

def prepare():
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if {damaged}:
        final.write_bytes(b"")

def act():
    assert entry(lambda: b"the value") == b"the value"

def check(number):
    made = []
    assert entry(lambda: made.append(1) or b"the value") == b"the value"
    assert entry(lambda: 1 / 0) == b"the value"
    if made:
        assert [path.name for path in place.iterdir()] == ["entry"], (number, list(place.iterdir()))

print(kill_points.kill_everywhere(prepare, act, check))
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_entry_is_whole_wherever_its_writer_is_killed(tmp_path: pathlib.Path, damaged: bool) -> None:
    (operations,) = kill_points.run(KILLED_CACHE.format(damaged=damaged), tmp_path)
    assert int(operations) >= 6


AT_ONCE = """
import os, pathlib, sys, time
from ghn_jax.files import cached

def write(file, value):
    for place in range(0, len(value), 1000):
        file.write(value[place:place + 1000])
        file.flush()

def make():
    pathlib.Path(f"making-{os.getpid()}").touch()
    while len(list(pathlib.Path().glob("making-*"))) < 2:
        time.sleep(0.001)
    return bytes(range(250)) * 4000

for _ in range(2):
    assert cached(pathlib.Path("cache/entry"), make, write, lambda file: file.read()) == bytes(range(250)) * 4000
"""


def test_two_processes_that_make_the_same_entry_end_well(tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(kill_points.ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", AT_ONCE], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert len(list(tmp_path.glob("making-*"))) == 2  # both were at it
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["entry"]


@pytest.mark.parametrize("fault", ["no folder", "full", "read-only"])
def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    path = tmp_path / "cache" / "entry"
    if fault == "no folder":
        path.parent.write_text("a file")
    elif fault == "full":

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
    elif os.geteuid() == 0:
        monkeypatch.setattr(os, "replace", _refuse)  # the superuser may write anywhere
    else:
        path.parent.mkdir(mode=0o500)
    with caplog.at_level(logging.WARNING):
        assert cached_text(path, "value") == ("value", True)
        assert cached_text(path, "value") == ("value", True)
    assert "cannot be written" in caplog.text
    assert str(path) in caplog.text
    assert fault == "no folder" or list(path.parent.iterdir()) == []


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GHN_JAX_CACHE": "/own", "XDG_CACHE_HOME": "/caches"}, "/own/images"),
        ({"GHN_JAX_CACHE": "", "XDG_CACHE_HOME": "/caches"}, "/caches/ghn_jax/images"),
        ({"GHN_JAX_CACHE": "~/own"}, "/home/someone/own/images"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/ghn_jax/images"),
        ({"XDG_CACHE_HOME": "caches"}, "/home/someone/.cache/ghn_jax/images"),
        ({}, "/home/someone/.cache/ghn_jax/images"),
    ],
)
def test_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, variables: dict[str, str], expected: str
) -> None:
    for name in ("GHN_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert cache_folder("images") == pathlib.Path(expected)
    monkeypatch.setenv("GHN_JAX_CACHE", "own")
    assert cache_folder() == tmp_path / "own"
    assert list(tmp_path.iterdir()) == []
