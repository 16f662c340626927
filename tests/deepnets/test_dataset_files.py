"""Dataset files: written, read, broken."""

import json
import multiprocessing
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from network_args import small_args

from ghn_jax.deepnets import DatasetReader, DatasetWriter, NetworkArgs, network_graph
from ghn_jax.deepnets.files.meta_file import meta_path
from ghn_jax.deepnets.files.tables import MOST_OPS
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.canonical import canonical_hash

COUNT = 5


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "nets.hdf5"
    with DatasetWriter(path) as writer:
        for split in ("train", "wide"):
            for index in range(COUNT):
                writer.add(split, sample_args(split, index)[0])
    return path


def equal(left: ArchGraph, right: ArchGraph) -> bool:
    arrays = ("node_types", "node_shapes", "edges")
    same = all(np.array_equal(getattr(left, name), getattr(right, name)) for name in arrays)
    return same and left.params == right.params


@pytest.mark.parametrize("split", ["train", "wide"])
def test_what_is_written_can_be_read(path: pathlib.Path, split: str):
    reader = DatasetReader(path, split)
    assert len(reader) == COUNT
    assert reader.count_agreeing() == COUNT
    for index in range(COUNT):
        args = sample_args(split, index)[0]
        assert reader.args(index).replace(fc_dim=args.fc_dim) == args
        graph, stored = reader.graph(index), reader.stored(index)
        assert equal(graph, network_graph(reader.args(index)))
        assert np.array_equal(stored.distances(50), graph.distances(50))
        assert np.array_equal(stored.edges, graph.edges)
        assert stored.num_edges == graph.num_edges
        assert np.array_equal(stored.node_types, graph.node_types)
        assert np.array_equal(stored.node_shapes, graph.node_shapes)
        assert stored.params == graph.params
        assert stored.num_nodes == graph.num_nodes == reader.record(index)["num_nodes"]


def test_files_look_like_those_of_the_release(path: pathlib.Path):
    with h5py.File(path) as file:
        assert file.attrs["title"] == "DeepNets-1M"
        adj, nodes = _dataset(file, "wide/0/adj"), _dataset(file, "wide/0/nodes")
        assert (adj.dtype, nodes.dtype) == (np.uint8, np.uint16)
        assert nodes.shape == (len(adj), 3)
    meta = json.loads(meta_path(path).read_text())
    assert list(meta) == ["train", "wide"]
    assert meta["wide"]["nets"][0]["C"] == 32
    assert "C" not in meta["train"]["nets"][0]
    assert set(meta["train"]["meta"]) == {"primitives_ext", "unique_op_names"}


def _dataset(file: h5py.File, place: str) -> h5py.Dataset:
    found = file[place]
    assert isinstance(found, h5py.Dataset)
    return found


def _without_checksums(path: pathlib.Path) -> None:
    """Makes the JSON what the release's would be."""
    meta = json.loads(meta_path(path).read_text())
    for split in meta.values():
        for record in split["nets"]:
            del record["checksum"], record["graph_checksum"]
    meta_path(path).write_text(json.dumps(meta))


def test_labels_on_wrong_rows_are_found(path: pathlib.Path):
    _without_checksums(path)
    with h5py.File(path, "r+") as file:
        nodes = _dataset(file, "train/2/nodes")
        nodes[:] = nodes[:][np.r_[0, 2, 1, 3 : len(nodes)]]
    reader = DatasetReader(path, "train")
    assert [reader.labels_agree(index) for index in range(COUNT)] == [True, True, False, True, True]
    stored, graph = reader.stored(2), reader.graph(2)
    assert stored.node_types[1] == graph.node_types[2]
    assert np.array_equal(stored.node_shapes[1], graph.node_shapes[2])
    assert {spec.node for spec in stored.params} == {spec.node for spec in graph.params}


def test_the_pair_of_another_network_is_refused(path: pathlib.Path):
    _without_checksums(path)
    with h5py.File(path, "r+") as file:
        file.move("train/1", "train/kept")
        file.copy("train/3", "train/1")
    with pytest.raises(ValueError, match=r"'train/1' must hold nodes .* of N = \d+ nodes, found"):
        DatasetReader(path, "train").labels_agree(1)


def _nodes(reader: DatasetReader, index: int) -> int:
    return reader.stored(index).num_nodes


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_other_processes_may_read(path: pathlib.Path, method: str):
    reader = DatasetReader(path, "train")
    expected = [_nodes(reader, index) for index in range(COUNT)]  # the file is open here from now on
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_nodes, [(reader, index) for index in range(COUNT)]) == expected
    assert _nodes(pickle.loads(pickle.dumps(reader)), 0) == expected[0]
    reader.close()
    assert _nodes(reader, 0) == expected[0]


def test_an_error_leaves_no_files(tmp_path: pathlib.Path):
    path = tmp_path / "nets.hdf5"
    with (
        pytest.raises(ValueError, match=r"'val/0': dataset files have no number for '_ops\.20\."),
        DatasetWriter(path) as writer,
    ):
        writer.add("val", deep_cell())
    assert list(tmp_path.iterdir()) == []


def deep_cell() -> NetworkArgs:
    steps = (MOST_OPS + 2) // 2
    return small_args((("conv_1x1", 0), ("conv_1x1", 1)) * steps, tuple(range(2, 2 + steps)))


def test_nothing_is_overwritten(path: pathlib.Path):
    with pytest.raises(ValueError, match=r"nets_meta\.json exists; remove it first"):
        DatasetWriter(path)


def test_two_writers_of_the_same_files_are_told_apart(tmp_path: pathlib.Path):
    code = f"from ghn_jax.deepnets import DatasetWriter; DatasetWriter({str(tmp_path / 'nets.hdf5')!r}).__enter__()"
    with DatasetWriter(tmp_path / "nets.hdf5") as writer:
        writer.add("val", sample_args("val", 0)[0])
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ValueError" in other.stderr
    assert "nets.hdf5 is being written by another process" in other.stderr
    assert len(DatasetReader(tmp_path / "nets.hdf5", "val")) == 1


def test_splits_are_written_in_one_go(tmp_path: pathlib.Path):
    args = sample_args("val", 0)[0]
    with DatasetWriter(tmp_path / "nets.hdf5") as writer:
        writer.add("val", args)
        writer.add("test", args)
        with pytest.raises(ValueError, match="split 'val' is finished already"):
            writer.add("val", args)


def _drop(key: str) -> Callable[[pathlib.Path], None]:
    def spoil(path: pathlib.Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]

    return spoil


def _edit(change: Callable[[dict], object]) -> Callable[[pathlib.Path], None]:
    def spoil(path: pathlib.Path) -> None:
        meta = json.loads(meta_path(path).read_text())
        change(meta)
        meta_path(path).write_text(json.dumps(meta))

    return spoil


def _cut(json_file: bool) -> Callable[[pathlib.Path], None]:
    def spoil(path: pathlib.Path) -> None:
        file = meta_path(path) if json_file else path
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return spoil


def _reshape(path: pathlib.Path) -> None:
    with h5py.File(path, "r+") as file:
        nodes = _dataset(file, "train/0/nodes")[:-1]
        del file["train/0/nodes"]
        file["train/0/nodes"] = nodes


def _rename(path: pathlib.Path) -> None:
    _without_checksums(path)
    with h5py.File(path, "r+") as file:
        nodes = _dataset(file, "train/0/nodes")
        nodes[1] = nodes[2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut(json_file=False), r"nets\.hdf5: not a complete HDF5 file"),
        (_cut(json_file=True), r"nets_meta\.json: not a complete JSON file of networks \("),
        (_drop("train"), r"nets\.hdf5: 'train/0/nodes' is missing"),
        (_drop("train/0/adj"), r"nets\.hdf5: 'train/0/adj' is missing"),
        (_reshape, r"nets\.hdf5: 'train/0' must hold nodes \(N, 3\) and adj \(N, N\) of N = 66 nodes, found \("),
        (_rename, "'train/0': no stored node is parameter 'stem"),
        (_edit(lambda meta: meta.pop("train")), r"nets_meta\.json: split 'train' is missing; splits there: wide"),
        (_edit(lambda meta: meta["train"].pop("meta")), "'meta' of split 'train' is missing"),
        (_edit(lambda meta: meta["train"].pop("nets")), "'nets' of split 'train' is missing"),
        (_edit(lambda meta: meta["train"]["meta"].pop("unique_op_names")), "table 'unique_op_names' of split 'train'"),
        (
            _edit(lambda meta: meta["train"]["meta"]["primitives_ext"].pop("0")),
            "uses number 0, missing in its",
        ),
        (_edit(lambda meta: meta["train"]["nets"][0].pop("n_cells")), "net 0 of 'train': .*'n_cells' is missing"),
        (_edit(lambda meta: meta["train"]["nets"][0].update(ks="3")), "net 0 of 'train': "),
    ],
)
def test_broken_files_are_named(path: pathlib.Path, spoil: Callable[[pathlib.Path], None], message: str):
    spoil(path)
    with pytest.raises(ValueError, match=message):
        DatasetReader(path, "train").stored(0)


Record = dict[str, Any]


@pytest.mark.parametrize("checksums", [True, False])
def test_every_entry_of_the_stored_graph_is_checked(path: pathlib.Path, checksums: bool):
    """Without checksums too: each distance is one along the stored edges, and these are the network's."""
    if not checksums:
        _without_checksums(path)
    with h5py.File(path) as file:
        count = len(_dataset(file, "train/0/adj"))
    rng = np.random.default_rng(0)
    for _ in range(12):
        row, column = rng.integers(count, size=2).tolist()
        with h5py.File(path, "r+") as file:
            adj = _dataset(file, "train/0/adj")
            before = adj[row, column]
            adj[row, column] = before ^ (1 << rng.integers(8))
        reader = DatasetReader(path, "train")
        for read in (reader.stored, *(() if checksums else (reader.args, reader.graph))):
            with pytest.raises(ValueError, match=r"nets\.hdf5.*'train/0'"):
                read(0)
        reader.args(1)
        with h5py.File(path, "r+") as file:
            _dataset(file, "train/0/adj")[row, column] = before
    DatasetReader(path, "train").stored(0)


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        (lambda record: record.update(stem_pool=not record["stem_pool"]), "does not fit|'num_params' is|stem_pool"),
        (lambda record: record.update(ks=10 - record["ks"] if record["ks"] != 5 else 3), "'num_params' is"),
        (lambda record: record.update(n_cells=record["n_cells"] + 1), "'num_params' is"),
        (lambda record: record.update(fc_layers=3 - record["fc_layers"]), "'num_params' is"),
        (lambda record: record.update(fc_dim=257), "'fc_dim' is 257; without a checksum it must be one of"),
        (lambda record: record.update(C=33), "'C' is 33; without a checksum it must be one of"),
        (lambda record: record.update(num_nodes=record["num_nodes"] + 1), "must hold nodes"),
    ],
)
def test_changed_arguments_are_refused(path: pathlib.Path, change: Callable[[Record], object], alone: str):
    """By the checksum, and without one by the weights, the labels and the edges."""

    def change_all(meta: dict) -> None:
        for record in meta["train"]["nets"]:
            change(record)

    old = _records(path)
    _edit(change_all)(path)
    new = _records(path)
    changed = [index for index in range(COUNT) if new[index] != old[index]]
    reader = DatasetReader(path, "train")
    for index in changed:
        with pytest.raises(ValueError, match=rf"nets_meta\.json: net {index} of 'train': 'checksum' is not that of"):
            reader.args(index)
    _without_checksums(path)
    reader = DatasetReader(path, "train")
    refused = 0
    for index in changed:
        if new[index] != {**old[index], **_of_network(old[index], new[index])}:
            with pytest.raises(ValueError, match=alone):
                reader.args(index)
            refused += 1
    assert refused


def _of_network(old: Record, new: Record) -> Record:
    """The new record if it is the same network: some arguments have no effect on some networks."""
    if any(old[key] != new[key] for key in ("num_nodes", "fc_dim")) or "C" in new:
        return {}
    one, other = (canonical_hash(network_graph(NetworkArgs.from_json(record))) for record in (old, new))
    return new if one == other else {}


def _records(path: pathlib.Path) -> list[Record]:
    return json.loads(meta_path(path).read_text())["train"]["nets"]


def test_a_checksum_may_not_vouch_for_another_network(path: pathlib.Path):
    _edit(lambda meta: meta["train"]["nets"].reverse())(path)
    reader = DatasetReader(path, "train")
    reader.args(0)  # the entry itself is whole
    with pytest.raises(ValueError, match=r"nets\.hdf5: 'train/0' (must hold|has not the 'graph_checksum')"):
        reader.stored(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_cells": 10**6}, "'n_cells' must be a whole number from 1 to 100, got 1000000"),
        ({"fc_layers": 10**8}, "'fc_layers' must be a whole number from 1 to 10, got 100000000"),
        ({"ks": True}, "'ks' must be a whole number from 1 to 31, got True"),
        ({"preproc": "no"}, "'preproc' must be true or false, got 'no'"),
        ({"norm": "lnorm"}, "'norm' must be 'bnorm' or null, got 'lnorm'"),
        ({"num_params": {}}, "'num_params' must have the keys cifar10, imagenet"),
        ({"num_params": {"cifar10": 1.0, "imagenet": 2}}, "'num_params' must be whole numbers"),
        ({"genotype": [1]}, r"'genotype' must be an object, got \[1\]"),
        ({"genotype": {}}, "'normal' is missing"),
        ({"genotype": {"normal": [["none", 0]] * 21, "normal_concat": [2]}}, "'normal' must be up to 20 pairs"),
        ({"genotype": {"normal": [["none", 0]] * 2, "normal_concat": [2] * 13}}, "'normal_concat' must be up to 12"),
    ],
)
def test_entries_are_read_within_bounds(path: pathlib.Path, change: Record, message: str):
    _edit(lambda meta: meta["train"]["nets"][1].update(change))(path)
    with pytest.raises(ValueError, match=rf"nets_meta\.json: net 1 of 'train': {message}"):
        DatasetReader(path, "train").args(1)


def test_an_extra_parameter_is_named(path: pathlib.Path):
    _without_checksums(path)
    _edit(lambda meta: meta["train"]["nets"][0].update(num_nodes=meta["train"]["nets"][0]["num_nodes"] + 1))(path)
    with h5py.File(path, "r+") as file:
        nodes = _dataset(file, "train/0/nodes")[:]
        wrong = nodes[-1].copy()
        wrong[1] += 1
        adj = np.pad(_dataset(file, "train/0/adj")[:], (0, 1))
        del file["train/0"]
        file["train/0/nodes"], file["train/0/adj"] = np.concatenate([nodes, wrong[None]]), adj
    with pytest.raises(ValueError, match="the network has no parameter 'classifier"):
        DatasetReader(path, "train").stored(0)


def test_a_missing_file_is_named(tmp_path: pathlib.Path):
    with pytest.raises(ValueError, match=r"none\.hdf5: no such file; a data set is NAME\.hdf5 with NAME_meta\.json"):
        DatasetReader(tmp_path / "none.hdf5", "train")


def test_indices_end(path: pathlib.Path):
    with pytest.raises(IndexError, match="'train' has 5 networks, asked for number 5"):
        DatasetReader(path, "train").args(5)
    with pytest.raises(ValueError, match="cutoff must be between 1 and 250, got 251"):
        DatasetReader(path, "train").stored(0).distances(251)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected one of '\{' at byte 0, found 'the end'"),
        ("[1, 2]", r"expected one of '\{' at byte 0, found '\['"),
        ("{}", "split 'train' is missing; splits there: none"),
        ('{"train": {"nets": [{}', r"expected one of ',\]' at byte 22, found 'the end'"),
    ],
)
def test_foreign_json_is_named(path: pathlib.Path, text: str, message: str):
    meta_path(path).write_text(text)
    with pytest.raises(ValueError, match=rf"nets_meta\.json: .*{message}"):
        len(DatasetReader(path, "train"))


def test_json_may_be_laid_out_in_any_way(path: pathlib.Path):
    expected = [DatasetReader(path, "wide").record(index) for index in range(COUNT)]
    split = json.loads(meta_path(path).read_text())["wide"]
    meta: dict[str, Any] = {
        "other": [],
        "wide": dict(reversed(split.items()), note="\u00fc\u2264"),
        "val": {"nets": []},
    }
    meta["wide"]["nets"][1]["comment"] = "\u00fc"
    meta_path(path).write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")
    reader = DatasetReader(path, "wide")
    assert reader.record(1).pop("comment") == "\u00fc"
    assert [reader.record(index) for index in (0, 2, 3, 4)] == [expected[index] for index in (0, 2, 3, 4)]
    with pytest.raises(ValueError, match="'meta' of split 'val' is missing"):
        len(DatasetReader(path, "val"))
