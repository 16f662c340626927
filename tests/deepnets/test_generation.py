"""Making whole splits: any number of workers, after a kill, with statistics."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.csgraph

from ghn_jax.deepnets import (
    DatasetReader,
    Generated,
    GenerationPlan,
    draw_statistics,
    generate_dataset,
    sample_architecture,
    statistics_table,
)
from ghn_jax.deepnets.files.meta_file import meta_path
from ghn_jax.deepnets.statistics import COLUMNS, PUBLISHED_SHARES, mean_path

PLAN = GenerationPlan("train", seed=3, count=50, part_size=8)
COMMAND = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "generate_deepnets.py"


def generate(path: pathlib.Path, plan: GenerationPlan = PLAN, workers: int = 1) -> tuple[Generated, dict[str, int]]:
    done: dict[str, int] = {}

    def progress(what: str, more: int) -> None:
        done[what] = done.get(what, 0) + more

    made = generate_dataset(path, plan, workers, progress)
    assert made is not None
    return made, done


def content(path: pathlib.Path) -> tuple[str, list[bytes]]:
    with h5py.File(path) as file:
        items: list[str] = []
        file.visit(items.append)
        arrays = [file[item] for item in items]
        return meta_path(path).read_text(), [
            name.encode() + (array[:].tobytes() if isinstance(array, h5py.Dataset) else b"")
            for name, array in zip(items, arrays, strict=True)
        ]


def test_the_number_of_workers_does_not_matter(tmp_path: pathlib.Path):
    alone, done = generate(tmp_path / "a.hdf5")
    shared, _ = generate(tmp_path / "b.hdf5", GenerationPlan("train", 3, 50, part_size=11), workers=2)
    assert done == {"making": 50, "joining": 50}
    assert content(tmp_path / "a.hdf5") == content(tmp_path / "b.hdf5")
    np.testing.assert_array_equal(alone.rows, shared.rows)
    assert alone.rejections == shared.rejections
    reader = DatasetReader(tmp_path / "a.hdf5", "train")
    assert reader.count_agreeing() == len(reader) == 50
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.hdf5", "a_meta.json", "b.hdf5", "b_meta.json"]


def run_apart(code: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(COMMAND.parents[1])}
    return subprocess.Popen(
        [sys.executable, *code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_killed_run_goes_on(tmp_path: pathlib.Path):
    path, plan = tmp_path / "a.hdf5", GenerationPlan("val", seed=1, count=400, part_size=20)
    code = f"""
import pathlib
from ghn_jax.deepnets import GenerationPlan, generate_dataset
generate_dataset(pathlib.Path({str(path)!r}), {plan!r}, workers=2, progress=lambda *_: None)
"""
    with run_apart(["-c", code]) as process:
        parts = path.with_suffix(".parts")
        while not list(parts.glob("*.hdf5")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    left = {file: file.stat().st_mtime_ns for file in parts.glob("*.hdf5")}
    assert 0 < len(left) < len(plan.parts)
    assert not path.exists()
    assert not meta_path(path).exists()
    generate(path, plan)
    assert not parts.exists()
    generate(tmp_path / "b.hdf5", plan)
    assert content(path) == content(tmp_path / "b.hdf5")


GENERATE = """
import pathlib, sys
from ghn_jax.deepnets import GenerationPlan, draw_statistics, generate_dataset
path = pathlib.Path(sys.argv[1])
plan = GenerationPlan("val", seed=1, count=100, part_size=10)
report = lambda made: draw_statistics(made.rows, "val", path.with_suffix(".png"))
generate_dataset(path, plan, 2, lambda *_: None, report)
"""


@pytest.mark.slow
def test_twenty_kills_end_in_the_same_bytes(tmp_path: pathlib.Path):
    """Half of them at any moment, half after the joined file has begun, around the giving of the names."""
    names = ("a.hdf5", "a_meta.json", "a.png")

    def start(folder: pathlib.Path) -> subprocess.Popen[str]:
        return run_apart(["-c", GENERATE, str(folder / "a.hdf5")])

    def finish(folder: pathlib.Path) -> list[bytes]:
        with start(folder) as process:
            _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert {file.name for file in folder.iterdir()} == set(names)
        return [(folder / name).read_bytes() for name in names]

    whole = tmp_path / "whole"
    whole.mkdir()
    begun = time.monotonic()
    expected = finish(whole)
    seconds = time.monotonic() - begun
    rng = random.Random(0)
    left: list[tuple[str, ...]] = []
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        with start(folder) as process:
            if number % 2:
                while process.poll() is None and not list(folder.glob("*a.hdf5*")):
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.1) * seconds)
            else:
                time.sleep(rng.uniform(0, 1) * seconds)
            process.kill()
        left.append(tuple(sorted(file.name for file in folder.iterdir())))
        assert finish(folder) == expected, (number, left[-1])
    assert len(set(left)) > 2, left


def test_the_command_ends_with_a_table(tmp_path: pathlib.Path):
    path = tmp_path / "new" / "a.hdf5"
    with run_apart([str(COMMAND), "--split=deep", "--count=12", "--workers=1", f"--out={path}"]) as process:
        text, _ = process.communicate()
    assert process.returncode == 0
    assert "mean degree" in text
    assert "rejected: several cse in a cell" in text
    assert len(DatasetReader(path, "deep")) == 12
    assert path.with_suffix(".png").exists()
    before = content(path)
    with run_apart([str(COMMAND), "--split=deep", "--count=12", "--workers=1", f"--out={path}"]) as process:
        text, _ = process.communicate()
    assert process.returncode == 0
    assert "12 architectures" in text
    assert "made before" in text
    assert content(path) == before
    (tmp_path / "file").touch()
    with run_apart([str(COMMAND), "--count=1", f"--out={tmp_path / 'file' / 'a.hdf5'}"]) as process:
        _, text = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in text
    assert "file" in text
    with run_apart([str(COMMAND), "--split=deeper", f"--out={path}"]) as process:
        _, text = process.communicate()
    assert process.returncode != 0
    assert "unknown split 'deeper'; known splits: train" in text


def test_parts_that_are_there_are_not_made_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.hdf5"
    generate(path)
    expected = content(path)
    path.unlink()
    meta_path(path).unlink()
    with monkeypatch.context() as patch:  # stop between making and joining
        patch.setattr("ghn_jax.deepnets.files.generation._join", _stop)
        with pytest.raises(KeyboardInterrupt):
            generate(path)
    parts = sorted(path.with_suffix(".parts").glob("*.hdf5"))
    assert len(parts) == 7
    parts[3].unlink()
    before = parts[0].stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("ghn_jax.deepnets.files.generation._join", _stop)
        with pytest.raises(KeyboardInterrupt):
            generate(path)
    assert parts[0].stat().st_mtime_ns == before
    generate(path)
    assert content(path) == expected


def _stop(*args: object) -> None:
    raise KeyboardInterrupt


def test_parts_of_another_plan_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ghn_jax.deepnets.files.generation._join", _stop)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "a.hdf5")
    with pytest.raises(ValueError, match=r"a\.parts holds parts of another run .*remove it"):
        generate(tmp_path / "a.hdf5", GenerationPlan("train", seed=4, count=50, part_size=8))


def test_an_error_stops_the_making_of_further_parts(tmp_path: pathlib.Path):
    plan = GenerationPlan("train", seed=3, count=400, part_size=1)

    def stop(what: str, more: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "a.hdf5", plan, 1, stop)
    assert 0 < len(list((tmp_path / "a.parts").glob("*.hdf5"))) < 200


def test_what_is_made_is_not_made_again_and_not_overwritten(tmp_path: pathlib.Path):
    path = tmp_path / "a.hdf5"
    reports: list[Generated] = []
    plan = GenerationPlan("val", seed=1, count=3, part_size=2)

    def make(plan: GenerationPlan) -> Generated | None:
        return generate_dataset(path, plan, 1, lambda *_: None, reports.append)

    made = make(plan)
    before = content(path)
    assert reports == [made]
    assert make(plan) is None
    assert make(GenerationPlan("val", seed=1, count=3)) is None  # parts do not change the content
    assert (content(path), len(reports)) == (before, 1)
    for other in (GenerationPlan("val", 2, 3), GenerationPlan("val", 1, 4), GenerationPlan("test", 1, 3)):
        with pytest.raises(ValueError, match=r"a_meta\.json|a\.hdf5 exists; remove it first"):
            make(other)


def test_a_failing_report_leaves_the_parts(tmp_path: pathlib.Path):
    plan = GenerationPlan("val", seed=1, count=3, part_size=2)
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "a.hdf5", plan, 1, lambda *_: None, _stop)
    reports: list[Generated] = []
    made = generate_dataset(tmp_path / "a.hdf5", plan, 1, lambda *_: None, reports.append)
    assert made is not None
    assert reports == [made]


def test_a_damaged_part_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    plan = GenerationPlan("val", seed=1, count=3, part_size=2)
    with monkeypatch.context() as patch:
        patch.setattr("ghn_jax.deepnets.files.generation._join", _stop)
        with pytest.raises(KeyboardInterrupt):
            generate_dataset(tmp_path / "a.hdf5", plan, 1, lambda *_: None)
    part = tmp_path / "a.parts" / "000001.hdf5"
    with h5py.File(part, "r+") as file:
        nodes = file["nets/2/nodes"]
        assert isinstance(nodes, h5py.Dataset)
        nodes[3] = nodes[4]
    with pytest.raises(ValueError, match=r"000001\.hdf5 is damaged \(architecture 2: .*remove it"):
        generate(tmp_path / "a.hdf5", plan)
    part.unlink()
    made, _ = generate(tmp_path / "a.hdf5", plan)
    assert len(made.rows) == len(DatasetReader(tmp_path / "a.hdf5", "val")) == 3


def test_parts_without_a_plan_are_refused(tmp_path: pathlib.Path):
    (tmp_path / "a.parts").mkdir()
    (tmp_path / "a.parts" / "000000.hdf5").write_text("of some other run")
    with pytest.raises(ValueError, match=r"a\.parts holds parts of another run \(without a plan\)"):
        generate(tmp_path / "a.hdf5")


def test_existing_files_are_kept(tmp_path: pathlib.Path):
    (tmp_path / "a_meta.json").write_text("mine")
    with pytest.raises(ValueError, match=r"a_meta\.json exists; remove it first"):
        generate(tmp_path / "a.hdf5")


@pytest.mark.parametrize(
    ("split", "seed", "count", "message"),
    [
        ("predefined", 0, 2, "there is nothing to generate"),
        ("other", 0, 2, "unknown split 'other'"),
        ("val", 0, 0, "count and part_size must be at least 1"),
        ("val", -1, 1, "seed not negative"),
    ],
)
def test_impossible_plans_are_refused(split: str, seed: int, count: int, message: str):
    with pytest.raises(ValueError, match=message):
        GenerationPlan(split, seed, count)


def test_statistics_are_right(tmp_path: pathlib.Path):
    made, _ = generate(tmp_path / "a.hdf5")
    assert made.rows.shape == (50, len(COLUMNS))
    rejections = 0
    for index, row in enumerate(made.rows):
        architecture = sample_architecture("train", index, 3)
        args, graph = architecture.args, architecture.graph()
        assert args is not None
        values = dict(zip(COLUMNS, row.tolist(), strict=True))
        assert (values["nodes"], values["edges"]) == (graph.num_nodes, graph.num_edges)
        assert values["cells"] == args.n_cells
        assert sum(row[-15:]) == graph.num_nodes
        assert values["batch_norm"] == (args.norm is not None)
        rejections += len(architecture.rejections)
    assert sum(made.rejections.values()) == rejections
    assert np.isnan(made.rows[1, COLUMNS.index("path")])


def test_mean_path_is_that_of_the_undirected_graph():
    for index in range(8):
        graph = sample_architecture("train", index).graph()
        count = graph.num_nodes
        edges = scipy.sparse.csr_matrix((np.ones(graph.num_edges), graph.edges.T), (count, count))
        paths = scipy.sparse.csgraph.shortest_path(edges, directed=False, unweighted=True)
        assert mean_path(graph) == pytest.approx(paths.sum() / (count * (count - 1)))


def test_table_and_picture(tmp_path: pathlib.Path):
    made, _ = generate(tmp_path / "a.hdf5")
    text = statistics_table(made.rows, "train")
    for word in ("published", "21-827", "mean degree", *(primitive.label for primitive in PUBLISHED_SHARES)):
        assert word in text
    conv = next(line for line in text.splitlines() if line.startswith("% conv"))
    share = 100 * made.rows[:, COLUMNS.index("conv")].sum() / made.rows[:, COLUMNS.index("nodes")].sum()
    assert f"{share:.2f} +- " in conv
    assert conv.endswith("36.3")
    assert "21-827" not in statistics_table(made.rows[:1], "search")
    draw_statistics(made.rows, "train", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
