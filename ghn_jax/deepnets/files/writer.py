"""Writes dataset files in the release's format, labels and rows in agreement."""

import contextlib
import dataclasses
import json
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from ghn_jax.deepnets.files.meta_file import meta_path
from ghn_jax.deepnets.files.records import MOST_NODES, graph_checksum, num_params, with_checksums
from ghn_jax.deepnets.files.stored import Labels, labelled_graph
from ghn_jax.deepnets.files.tables import TYPES, numbers_of_names, op_names
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.splits import SPLITS, WIDE_FACTOR
from ghn_jax.files import flush_file
from ghn_jax.graphs.arch_graph import MAX_CUTOFF, ArchGraph

_NUMBER_OF_TYPE = {name: number for number, name in enumerate(TYPES)}


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One network as it goes into the files.

    Attributes:
      nodes: uint16 (N, 3): number of the type, cell, number of the op name.
      adj: uint8 (N, N) distances up to 250.
      record: its entry of the JSON.
      graph: its graph.
    """

    nodes: np.ndarray
    adj: np.ndarray
    record: dict[str, Any]
    graph: ArchGraph


def make_entry(split: str, args: NetworkArgs, name: str) -> Entry:
    """Prepares one network.

    Raises:
      ValueError: if it has parameters that the tables do not name (more than 10 steps, or 2 classifier layers), or more
        nodes than a reader takes.
    """
    graph, labels = labelled_graph(args, name)
    if graph.num_nodes > MOST_NODES:
        raise ValueError(
            f"architecture {name!r} has {graph.num_nodes:,} nodes; dataset files hold up to {MOST_NODES:,}"
        )
    nodes = np.array(_numbers(labels, name), np.uint16)
    record = args.to_json()
    width = record.pop("C")
    record["num_nodes"] = graph.num_nodes
    record["num_params"] = num_params(args)
    if SPLITS[split].evaluated:
        record["C"] = width // WIDE_FACTOR if split == "wide" else width
    adj = graph.distances(MAX_CUTOFF)
    return Entry(nodes, adj, with_checksums(record, graph_checksum(labels, adj)), graph)


def _numbers(labels: Labels, name: str) -> list[tuple[int, int, int]]:
    numbers = numbers_of_names()
    try:
        return [(_NUMBER_OF_TYPE[kind], cell, numbers[op]) for kind, cell, op in labels]
    except KeyError as error:
        raise ValueError(
            f"architecture {name!r}: dataset files have no number for {error.args[0]!r}; "
            "they hold cells of up to 10 steps and classifiers of up to 2 layers"
        ) from None


def add_pair(parent: h5py.Group, name: str, nodes: np.ndarray, adj: np.ndarray) -> None:
    """Writes nodes and (compressed) distances of one network into a group."""
    place = parent.create_group(name)
    place.create_dataset("nodes", data=nodes)
    place.create_dataset("adj", data=adj, chunks=adj.shape, compression="gzip", compression_opts=1)


def new_hdf5(path: pathlib.Path) -> h5py.File:
    """A new HDF5 file of the oldest version, as the release's are and `Hdf5File` reads them."""
    return h5py.File(path, "w", libver="earliest")


def _finals(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """JSON and HDF5 file, in the order in which they get their names."""
    return meta_path(path), path


def _partials(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Their names while they are written."""
    json_final, final = _finals(path)
    return json_final.with_name(f".{json_final.name}.partial"), final.with_name(f".{final.name}.partial")


def finish_naming(path: pathlib.Path) -> None:
    """Gives the HDF5 file its name if its writer was killed when only the JSON file had got its own.

    Nothing is named before both are complete, so an HDF5 file that waits beside a named JSON file is whole.
    """
    json_partial, partial = _partials(path)
    json_final, final = _finals(path)
    if json_final.exists() and not json_partial.exists() and partial.exists() and not final.exists():
        partial.rename(final)


class DatasetWriter:
    """Writes ``NAME.hdf5`` and ``NAME_meta.json``; a context manager.

    Both are written under hidden names and take their own once complete and on disk, so a file under its own name is
    whole. If the block ends in an error, nothing is left. If the process is killed, the next writer of the same files
    (or `generate_dataset`) completes what needed nothing but its name. Splits are written one after the other.
    """

    def __init__(self, path: str | os.PathLike[str], plan: Mapping[str, Any] | None = None):
        """Raises ValueError if a file of that name exists.

        Args:
          path: of the HDF5 file.
          plan: how the networks are made, noted in the JSON beside those of each split.
        """
        self.path = pathlib.Path(path)
        self._plan = plan
        finish_naming(self.path)
        for final in _finals(self.path):
            if final.exists():
                raise ValueError(f"{final} exists; remove it first or choose another name")
        self._split: str | None = None
        self._counts: dict[str, int] = {}

    def __enter__(self) -> "DatasetWriter":
        json_partial, partial = _partials(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = new_hdf5(partial)
        except BlockingIOError as error:
            raise ValueError(f"{self.path} is being written by another process ({error})") from None
        self._json = json_partial.open("w")
        self._file.attrs["title"] = "DeepNets-1M"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        partials, complete = _partials(self.path), False
        try:
            with contextlib.closing(self._file), contextlib.closing(self._json):
                if kind is None:
                    self._end_split()
                    self._json.write("}" if self._counts else "{}")
            if kind is None:
                for partial in partials:
                    flush_file(partial)
                complete = True
        finally:
            if not complete:
                for partial in partials:
                    partial.unlink(missing_ok=True)
        if complete:
            for partial, final in zip(partials, _finals(self.path), strict=True):
                partial.rename(final)

    def add(self, split: str, args: NetworkArgs) -> None:
        """Appends a network to a split."""
        parent, index = self._next(split)
        entry = make_entry(split, args, f"{split}/{index}")
        self._write_record(json.dumps(entry.record))
        add_pair(parent, str(index), entry.nodes, entry.adj)

    def add_made(self, split: str, nodes: np.ndarray, adj: np.ndarray, record: str) -> None:
        """Appends a network of which everything is made, with its JSON text."""
        parent, index = self._next(split)
        self._write_record(record)
        add_pair(parent, str(index), nodes, adj)

    def _next(self, split: str) -> tuple[h5py.Group, int]:
        if split != self._split:
            if split in self._counts:
                raise ValueError(f"{self.path}: split {split!r} is finished already; add its networks in one go")
            self._end_split()
            self._json.write(f'{", " if self._counts else "{"}{json.dumps(split)}: {{"nets": [')
            self._split, self._counts[split] = split, 0
            self._group = self._file.create_group(split)
        index = self._counts[split]
        self._counts[split] += 1
        return self._group, index

    def _write_record(self, record: str) -> None:
        if self._counts[str(self._split)] > 1:
            self._json.write(", ")
        self._json.write(record)

    def _end_split(self) -> None:
        if self._split is None:
            return
        tables = {
            "primitives_ext": {str(number): name for number, name in enumerate(TYPES)},
            "unique_op_names": {str(number): name for number, name in enumerate(op_names())},
        }
        plan = "" if self._plan is None else f', "plan": {json.dumps(self._plan)}'
        self._json.write(f'], "meta": {json.dumps(tables)}{plan}}}')
        self._split = None
