"""Which architectures training may not use: those that are the same network as one of an evaluation split.

Two arguments can describe one network: the order of a step's two ops, ops without effect on the output and the unused
kind of cell change the arguments only. So architectures are compared by their graphs, up to isomorphism
(`graphs.canonical`), at one width: C, fc_dim, classes and image size belong to a use of an architecture.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable

from ghn_jax.deepnets.files.meta_file import meta_path, split_names
from ghn_jax.deepnets.files.reader import DatasetReader
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.predefined import VIT
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.splits import SPLITS
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.canonical import Signature, canonical_hash, signature

EVALUATION_SEED = 0
"""Seed of all evaluation splits."""

_MOST_OF_A_SPLIT = 500


def held_out_count(split: str) -> int:
    """How many architectures of a split, from number 0 on, are kept out of training.

    The published number of every evaluation split, and the first 500 of ``search``; none of ``train``.
    """
    return 0 if split == "train" else min(SPLITS[split].published, _MOST_OF_A_SPLIT)


def comparable(args: NetworkArgs) -> NetworkArgs:
    """The same architecture at the width, classes and image size at which architectures are compared."""
    return args.replace(C=32, fc_dim=64, num_classes=10, image_size=32)


def architecture_hash(args: NetworkArgs) -> int:
    """`canonical_hash` of an architecture: the same for all arguments of the same network, at any width."""
    return canonical_hash(network_graph(comparable(args)))


@dataclasses.dataclass(frozen=True, slots=True)
class HeldOut:
    """A set of architectures up to isomorphism.

    Attributes:
      signatures: of their graphs: tells most other architectures apart without their hash, which takes longer.
      hashes: their `architecture_hash`.
    """

    signatures: frozenset[Signature]
    hashes: frozenset[int]

    @classmethod
    def of(cls, architectures: Iterable[NetworkArgs]) -> "HeldOut":
        """The set of given architectures."""
        graphs = [network_graph(comparable(args)) for args in architectures]
        return cls(frozenset(map(signature, graphs)), frozenset(map(canonical_hash, graphs)))

    def holds(self, args: NetworkArgs, graph: ArchGraph) -> bool:
        """Whether an architecture is one of them; `graph` is its graph at any width."""
        return signature(graph) in self.signatures and architecture_hash(args) in self.hashes


@functools.cache
def evaluation_networks() -> HeldOut:
    """All evaluation splits as this project draws them (`held_out_count`), and the predefined ViT: 1,801 architectures.

    Takes two or three seconds, once a process. Classes and image size do not matter: an architecture is held out
    whatever it is used for.
    """
    drawn = (
        sample_args(split, index, EVALUATION_SEED)[0]
        for split in SPLITS
        if split not in ("predefined", "wide")  # `wide` holds networks of `test`
        for index in range(held_out_count(split))
    )
    return HeldOut.of((*drawn, VIT))


def split_file(path: pathlib.Path, split: str) -> pathlib.Path:
    """File of a data set that holds a split: beside a file ``NAME_train``, ``NAME_search`` or ``NAME_eval``, the other.

    A file that is named otherwise, or has no such file beside it, is taken to hold all splits itself.
    """
    base, _, kind = path.stem.rpartition("_")
    wanted = path.with_name(f"{base}_{split if split in ('train', 'search') else 'eval'}{path.suffix}")
    return wanted if kind in ("train", "search", "eval") and wanted.is_file() else path


@functools.lru_cache(maxsize=2)
def file_networks(path: pathlib.Path) -> HeldOut:
    """`evaluation_networks`, and those of the evaluation splits of the data set that a file belongs to.

    Args:
      path: any file of the data set.
    """
    place = split_file(path, "test")
    there = split_names(meta_path(place))
    readers = [DatasetReader(place, split) for split in there if split not in ("train", "search", "predefined")]
    stored = HeldOut.of(reader.args(index) for reader in readers for index in range(len(reader)))
    drawn = evaluation_networks()
    return HeldOut(drawn.signatures | stored.signatures, drawn.hashes | stored.hashes)
