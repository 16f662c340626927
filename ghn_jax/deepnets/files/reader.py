"""Reads the release's dataset files: an HDF5 file of graphs and a JSON file of arguments beside it."""

import functools
import os
import pathlib
from typing import Any

import h5py
import numpy as np

from ghn_jax.deepnets.files.hdf5 import array, open_file
from ghn_jax.deepnets.files.meta_file import MetaFile, meta_path
from ghn_jax.deepnets.files.stored import Labels, StoredGraph, attach_labels, labels_agree
from ghn_jax.deepnets.genotype import LARGE_IMAGE_ABOVE, NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.splits import WIDE_FACTOR, WIDE_FACTOR_LARGE_IMAGES
from ghn_jax.graphs.arch_graph import ArchGraph


class DatasetReader:
    """One split of a dataset file.

    Nothing is read before it is asked for. A reader may be pickled, and used in forked or spawned processes: each opens
    the file for itself.

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
        self._opened: tuple[int, h5py.File] | None = None
        for file in (self.path, meta_path(self.path)):
            if not file.is_file():
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
        record = self.record(index)
        try:
            args = NetworkArgs.from_json(record, num_classes=self.num_classes, image_size=self.image_size)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{meta_path(self.path)}: net {index} of {self.split!r}: {error}") from error
        if self.split != "wide":
            return args
        large = self.image_size > LARGE_IMAGE_ABOVE
        return args.replace(C=args.C * (WIDE_FACTOR_LARGE_IMAGES if large else WIDE_FACTOR))

    def graph(self, index: int) -> ArchGraph:
        """The network's graph, built from its arguments."""
        return network_graph(self.args(index), self._name(index))

    def stored(self, index: int) -> StoredGraph:
        """The pair of labels and distances as it stands in the file: what the release feeds its GHNs."""
        args = self.args(index)
        return attach_labels(args, self._name(index), *self._pair(index))

    def labels_agree(self, index: int) -> bool:
        """Whether the stored labels are on the rows that the stored distances give them."""
        return labels_agree(self.args(index), self._name(index), *self._pair(index))

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

    def _file(self) -> h5py.File:
        """The file, opened by this very process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_file(self.path))
        return self._opened[1]

    def _pair(self, index: int) -> tuple[Labels, np.ndarray]:
        """Labels of the rows and uint8 (N, N) distances."""
        nodes, distances = (array(self._file(), f"{self._name(index)}/{key}") for key in ("nodes", "adj"))
        if nodes.ndim != 2 or nodes.shape[1] != 3 or distances.shape != (len(nodes), len(nodes)):
            raise ValueError(
                f"{self.path}: {self._name(index)!r} must hold nodes (N, 3) and adj (N, N), "
                f"found {nodes.shape} and {distances.shape}"
            )
        return self._labels(nodes, index), distances.astype(np.uint8)

    def _labels(self, nodes: np.ndarray, index: int) -> Labels:
        types, names = self._meta.types, self._meta.op_names
        try:
            return tuple((types[str(kind)], cell, names[str(op)]) for kind, cell, op in nodes.tolist())
        except KeyError as error:
            raise ValueError(
                f"{meta_path(self.path)}: {self._name(index)!r} uses number {error.args[0]}, missing in its tables"
            ) from None
