"""Damaged and hostile dataset files: each reads as the good one, or is refused by name."""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import h5py
import pytest
from parity_data import PARITY, needs_parity
from robustness.damage import damaged_copies
from robustness.guard import Outcome, counts, faults, read_all
from robustness.hostile_datasets import write_hdf5, write_json

from ghn_jax.deepnets import DatasetReader, DatasetWriter
from ghn_jax.deepnets.files.meta_file import meta_path
from ghn_jax.deepnets.sampler import sample_args

COUNT = 3


def read(path: pathlib.Path) -> Any:
    """Everything that a reader gives of a split, named by its HDF5 file or by its JSON file.

    The cell of a row without parameters means nothing, and is left out.
    """
    hdf5 = path if path.suffix == ".hdf5" else path.with_name(path.name.replace("_meta.json", ".hdf5"))
    with_reader = DatasetReader(hdf5, "train")
    nets = []
    for index in range(len(with_reader)):
        args, graph, stored = (getattr(with_reader, what)(index) for what in ("args", "graph", "stored"))
        arrays = stored.all_distances, stored.node_types, stored.node_shapes, stored.edges
        nets.append([args, graph.node_types, graph.node_shapes, graph.edges, *arrays, repr(stored.params)])
    return nets


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small file of ours."""
    path = tmp_path_factory.mktemp("own") / "nets.hdf5"
    with DatasetWriter(path) as writer:
        for index in range(COUNT):
            writer.add("train", sample_args("train", index)[0])
    return path


@pytest.fixture(scope="module")
def without(own: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The same as the release would have written it: without checksums, the distances plain."""
    path = tmp_path_factory.mktemp("without") / "nets.hdf5"
    with h5py.File(own) as old, h5py.File(path, "w", libver="earliest") as new:
        old.visititems(lambda name, item: new.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    meta = json.loads(meta_path(own).read_text())
    for record in meta["train"]["nets"]:
        del record["checksum"], record["graph_checksum"]
    meta_path(path).write_text(json.dumps(meta))
    return path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The smallest networks that the release wrote, without the others."""
    path = tmp_path_factory.mktemp("release") / "nets.hdf5"
    source = PARITY / "deepnets" / "deepnets1m_train.hdf5"
    meta = json.loads(meta_path(source).read_text())
    sizes = [record["num_nodes"] for record in meta["train"]["nets"]]
    smallest = sorted(range(len(sizes)), key=sizes.__getitem__)[:COUNT]
    with h5py.File(source) as old, h5py.File(path, "w", libver="earliest") as new:
        for place, index in enumerate(smallest):
            old.copy(f"train/{index}", new.require_group("train"), str(place))
    meta["train"]["nets"] = [meta["train"]["nets"][index] for index in smallest]
    meta_path(path).write_text(json.dumps(meta))
    return path


def _structures(path: pathlib.Path) -> list[range]:
    """Where the file's structures stand, which get extreme numbers."""
    data, found = path.read_bytes(), [range(96)]
    for signature, length in ((b"TREE", 64), (b"SNOD", 48), (b"HEAP", 32)):
        at = data.find(signature)
        while at >= 0:
            found.append(range(at, at + length))
            at = data.find(signature, at + 1)
    return found


def _damaged(good: pathlib.Path, into: pathlib.Path, count: int, seed: int, json_file: bool) -> list[pathlib.Path]:
    """Damaged copies of one of the two files, each beside a good copy of the other."""
    if not json_file:
        copies = damaged_copies(good, into, count, seed, _structures(good))
        for copy in copies:
            shutil.copy(meta_path(good), meta_path(copy))
        return copies
    named = []
    for copy in damaged_copies(meta_path(good), into, count, seed):
        named.append(copy.rename(copy.with_name(f"{copy.stem}_meta.json")))
        shutil.copy(good, copy.with_suffix(".hdf5"))
    return named


def _check(outcomes: Sequence[Outcome], both: int) -> None:
    """No faults; and the damage did something: fewer are as good as are refused."""
    print(counts(outcomes))
    assert not faults(outcomes)
    assert counts(outcomes)["refused"] > both


@pytest.mark.parametrize(("json_file", "count"), [(False, 14), (True, 10)])
@pytest.mark.parametrize("kind", ["own", "without"])
def test_damaged_files(kind: str, json_file: bool, count: int, tmp_path: pathlib.Path, request: pytest.FixtureRequest):
    good: pathlib.Path = request.getfixturevalue(kind)
    _check(read_all(read, good, _damaged(good, tmp_path / "bad", count, 0, json_file)), count // 3)


@pytest.mark.slow
@pytest.mark.parametrize(("json_file", "count"), [(False, 250), (True, 120)])
@pytest.mark.parametrize("kind", ["own", "without", pytest.param("release", marks=needs_parity)])
def test_many_damaged_files(
    kind: str, json_file: bool, count: int, tmp_path: pathlib.Path, request: pytest.FixtureRequest
):
    good: pathlib.Path = request.getfixturevalue(kind)
    _check(read_all(read, good, _damaged(good, tmp_path / "bad", count, 1, json_file)), count // 3)


def test_hostile_hdf5_files(own: pathlib.Path, tmp_path: pathlib.Path):
    outcomes = read_all(read, own, write_hdf5(own, tmp_path / "bad"))
    assert not faults(outcomes)
    harmless = {outcome.file.stem for outcome in outcomes if outcome.kind == "good"}
    assert harmless == {"several-chunks", "plain", "large-attribute"}


def test_hostile_json_files(own: pathlib.Path, tmp_path: pathlib.Path):
    outcomes = read_all(read, own, write_json(own, tmp_path / "bad"))
    assert not faults(outcomes)
    assert {outcome.file.name for outcome in outcomes if outcome.kind == "good"} == {"indented_meta.json"}
