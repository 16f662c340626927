"""Reads the release's dataset files: an HDF5 file of graphs and a JSON file of arguments beside it."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Generator
from typing import Any

import numpy as np

from ghn_jax.deepnets.files.hdf5 import Hdf5File
from ghn_jax.deepnets.files.meta_file import MetaFile, meta_path
from ghn_jax.deepnets.files.records import CHECKSUM, GRAPH_CHECKSUM, MOST_NODES, graph_checksum, parse_record
from ghn_jax.deepnets.files.stored import Labels, StoredGraph, attach_labels, compared_graph, labels_agree
from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE, NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.splits import WIDE_FACTOR, WIDE_FACTOR_LARGE_IMAGES
from ghn_jax.graphs.arch_graph import ArchGraph


class DatasetReader:
    """One split of a dataset file.

    Nothing is read before it is asked for, and what is read of a network has been checked: arguments and stored graph
    against their checksums, where the file has them. Where it has none, as the release's files, the two are checked
    against each other, once for each network: its graph, built from the arguments, must have the stored labels and
    edges, up to the order of the nodes. Any difference is a ValueError that names file and network.

    A reader may be pickled, and used in forked or spawned processes: each opens the file for itself.

    Attributes:
      path: the HDF5 file.
      split: the split.
      num_classes, image_size: of the task that arguments are read for.
    """

    def __init__(self, path: str | os.PathLike[str], split: str, *, num_classes: int = 10, image_size: int = 32):
        """Raises ValueError if a file does not exist."""
        self.path = pathlib.Path(path)
        self.split = split
        self.num_classes = num_classes
        self.image_size = image_size
        self._opened: tuple[int, Hdf5File] | None = None
        self._compared: set[int] = set()
        for file in (self.path, meta_path(self.path)):
            if not file.exists():
                raise ValueError(f"{file}: no such file; a data set is NAME.hdf5 with NAME_meta.json beside it")

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open file."""
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return len(self._meta)

    def record(self, index: int) -> dict[str, Any]:
        """Entry of ``nets`` as it stands in the JSON: arguments and statistics of a network."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: {self.split!r} has {len(self)} networks, asked for number {index}")
        return self._meta.record(index)

    def args(self, index: int) -> NetworkArgs:
        """Arguments of a network; ``wide`` at its full width, ``train`` at C = 32 (use `draw_width`)."""
        return self._checked(index)[0]

    def graph(self, index: int) -> ArchGraph:
        """The network's graph, built from its arguments."""
        args, graph = self._checked(index)
        graph = graph or network_graph(args, self._name(index))
        if graph.num_nodes != (count := self.record(index)["num_nodes"]):
            raise ValueError(
                f"{meta_path(self.path)}: net {index} of {self.split!r} has {graph.num_nodes} nodes, not {count}"
            )
        return graph

    def stored(self, index: int) -> StoredGraph:
        """The pair of labels and distances as it stands in the file: what the release feeds its GHNs."""
        record = self.record(index)
        args, pair = self._parse(index, record), self._pair(index, record)
        with self._naming_both():
            return attach_labels(args, self._name(index), *pair, compare=CHECKSUM not in record)

    def labels_agree(self, index: int) -> bool:
        """Whether the stored labels are on the rows that the stored distances give them."""
        record = self.record(index)
        return labels_agree(self._parse(index, record), self._name(index), *self._pair(index, record))

    def count_agreeing(self) -> int:
        """How many of the stored graphs have their labels on the right rows."""
        return sum(self.labels_agree(index) for index in range(len(self)))

    def close(self) -> None:
        """Closes the file; it is opened again when needed."""
        if self._opened is not None and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None

    def _name(self, index: int) -> str:
        return f"{self.split}/{index}"

    @functools.cached_property
    def _meta(self) -> MetaFile:
        return MetaFile.scan(meta_path(self.path), self.split)

    def _checked(self, index: int) -> tuple[NetworkArgs, ArchGraph | None]:
        """Arguments, and the network's graph if that had to be built to check them."""
        record = self.record(index)
        args = self._parse(index, record)
        if CHECKSUM in record or index in self._compared:
            return args, None
        pair = self._pair(index, record)
        with self._naming_both():
            graph = compared_graph(args, self._name(index), *pair)
        self._compared.add(index)
        return args, graph

    def _parse(self, index: int, record: dict[str, Any]) -> NetworkArgs:
        """Arguments in an entry of ``nets``, as far as it can be checked alone."""
        try:
            args = parse_record(record, num_classes=self.num_classes, image_size=self.image_size)
        except ValueError as error:
            raise ValueError(f"{meta_path(self.path)}: net {index} of {self.split!r}: {error}") from error
        if self.split != "wide":
            return args
        large = self.image_size > LARGE_IMAGE_ABOVE
        return args.replace(C=args.C * (WIDE_FACTOR_LARGE_IMAGES if large else WIDE_FACTOR))

    @contextlib.contextmanager
    def _naming_both(self) -> Generator[None]:
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.path} does not fit {meta_path(self.path).name}: {error}") from error

    def _file(self) -> Hdf5File:
        """The file, opened by this very process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), Hdf5File(self.path))
        return self._opened[1]

    def _pair(self, index: int, record: dict[str, Any]) -> tuple[Labels, np.ndarray]:
        """Labels of the rows and uint8 (N, N) distances, as they were written if they have a checksum."""
        name, file = self._name(index), self._file()
        nodes = file.array(f"{name}/nodes", np.uint16, 2, 3 * MOST_NODES)
        distances = file.array(f"{name}/adj", np.uint8, 2, MOST_NODES**2)
        count = record["num_nodes"]
        if nodes.shape != (count, 3) or distances.shape != (count, count):
            raise ValueError(
                f"{self.path}: {name!r} must hold nodes (N, 3) and adj (N, N) of N = {count} nodes, "
                f"found {nodes.shape} and {distances.shape}"
            )
        labels = self._labels(nodes, index)
        if CHECKSUM in record and graph_checksum(labels, distances) != record[GRAPH_CHECKSUM]:
            raise ValueError(
                f"{self.path}: {name!r} has not the {GRAPH_CHECKSUM!r} that {meta_path(self.path).name} gives: "
                "it is not as it was written"
            )
        return labels, distances

    def _labels(self, nodes: np.ndarray, index: int) -> Labels:
        types, names = self._meta.types, self._meta.op_names
        try:
            return tuple((types[str(kind)], cell, names[str(op)]) for kind, cell, op in nodes.tolist())
        except KeyError as error:
            raise ValueError(
                f"{meta_path(self.path)}: {self._name(index)!r} of {self.path.name} uses number {error.args[0]}, "
                "missing in its tables"
            ) from None
