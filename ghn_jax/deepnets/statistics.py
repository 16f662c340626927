"""Statistics of a set of architectures beside those published (paper, Table 1)."""

import dataclasses
import types
from collections.abc import Mapping, Sequence

import numpy as np

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.widths import counted_params
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.vocabulary import Primitive


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What the paper says of a split; None where it says nothing."""

    nodes: tuple[int, int]
    cells: tuple[int, int]
    no_batch_norm: float
    mean_degree: float
    mean_path: float


_TEST = Published((33, 579), (4, 18), 4.1, 2.3, 14.5)
PUBLISHED: Mapping[str, Published] = types.MappingProxyType(
    {
        "train": Published((21, 827), (4, 18), 3.5, 2.3, 14.5),
        "val": _TEST,
        "test": _TEST,
        "wide": dataclasses.replace(_TEST, mean_path=14.7),
        "deep": Published((74, 1017), (10, 36), 2.0, 2.3, 26.2),
        "dense": Published((57, 993), (4, 18), 5.0, 2.4, 15.1),
        "bnfree": Published((33, 503), (4, 18), 100.0, 2.4, 10.0),
    }
)
"""Range of nodes, range of cells, percentage without batch norm, mean degree, mean path (paper, Table 1)."""

PUBLISHED_SHARES: Mapping[Primitive, float] = types.MappingProxyType(
    {
        Primitive.CONV: 36.3,
        Primitive.BN: 25.5,
        Primitive.SUM: 11.1,
        Primitive.BIAS: 6.5,
        Primitive.SEP_CONV: 5.1,
        Primitive.CONCAT: 3.8,
        Primitive.DIL_CONV: 2.5,
        Primitive.LN: 2.5,
        Primitive.MAX_POOL: 1.8,
        Primitive.AVG_POOL: 1.7,
        Primitive.MSA: 1.2,
        Primitive.CSE: 1.0,
        Primitive.INPUT: 0.5,
        Primitive.GLOB_AVG: 0.5,
        Primitive.POS_ENC: 0.2,
    }
)
"""Percentage of the nodes of all training networks together."""

COLUMNS = ("cells", "nodes", "edges", "params", "batch_norm", "path", *(p.label for p in Primitive))
"""Columns of a table of statistics, one row an architecture; ``path`` is NaN where it was not measured."""


def measure(graph: ArchGraph, args: NetworkArgs, *, path: bool) -> list[float]:
    """One row of a table: `COLUMNS`; `path` says whether to measure the mean path."""
    counts = np.bincount(graph.node_types, minlength=len(Primitive))
    params = counted_params(args)
    length = mean_path(graph) if path else float("nan")
    return [args.n_cells, graph.num_nodes, graph.num_edges, params, args.norm is not None, length, *counts.tolist()]


def mean_path(graph: ArchGraph) -> float:
    """Mean length of the shortest paths between all pairs of nodes, edges taken both ways.

    The pairs further apart than d are counted for d = 0, 1, ..; sets of nodes are the bits of integers.
    """
    count = graph.num_nodes
    if count < 2:
        return 0.0
    around: list[list[int]] = [[node] for node in range(count)]
    for source, target in graph.edges.tolist():
        around[source].append(target)
        around[target].append(source)
    reached = [1 << node for node in range(count)]
    total, far = 0, count * (count - 1)
    while far:
        total += far
        grown = []
        for neighbours in around:
            union = 0
            for node in neighbours:
                union |= reached[node]
            grown.append(union)
        reached = grown
        far = count * count - sum(nodes.bit_count() for nodes in reached)
    return total / (count * (count - 1))


def statistics_table(rows: np.ndarray, split: str) -> str:
    """Text that sets the statistics of architectures beside the published ones.

    Args:
      rows: float (architectures, len(COLUMNS)).
      split: which published numbers to show.
    """
    values = dict(zip(COLUMNS, np.asarray(rows, float).T, strict=True))
    known = PUBLISHED.get(split)
    path = values["path"][~np.isnan(values["path"])]
    lines = [
        ("architectures", f"{len(rows):,}", ""),
        ("nodes", _range(values["nodes"]), _pair(known.nodes) if known else ""),
        ("cells", _range(values["cells"]), _pair(known.cells) if known else ""),
        ("weights at C 32, in M", _range(values["params"] / 1e6, 2), ""),
        ("% without BN", _mean(100 * (1 - values["batch_norm"])), _number(known and known.no_batch_norm)),
        ("mean degree", _mean(2 * values["edges"] / values["nodes"], 2), _number(known and known.mean_degree)),
        (f"mean path ({len(path):,})", _mean(path, 2), _number(known and known.mean_path)),
    ]
    total = values["nodes"].sum()
    shares = PUBLISHED_SHARES if split == "train" else {}
    for primitive in PUBLISHED_SHARES:
        share = 100 * values[primitive.label].sum() / total
        error = 100 * _ratio_error(values[primitive.label], values["nodes"])
        lines.append((f"% {primitive.label}", f"{share:.2f} +- {error:.2f}", _number(shares.get(primitive))))
    header = ("", "here (mean +- standard error)", "published")
    return "\n".join(f"{name:<24}{here:>36}{there:>14}".rstrip() for name, here, there in (header, *lines))


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean of independent values: their deviation (n - 1) over sqrt n; NaN below two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _ratio_error(part: np.ndarray, whole: np.ndarray) -> float:
    """Standard error of the ratio of two sums over independent architectures."""
    return standard_error(part - part.sum() / whole.sum() * whole) / float(whole.mean())


def _mean(values: np.ndarray, digits: int = 1) -> str:
    if len(values) < 2:
        return "-" if not len(values) else f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} +- {standard_error(values):.{digits + 1}f}"


def _range(values: np.ndarray, digits: int = 0) -> str:
    return f"{values.min():.{digits}f}-{values.max():.{digits}f}, mean {values.mean():.{max(digits, 1)}f}"


def _pair(values: Sequence[int]) -> str:
    return f"{values[0]}-{values[1]}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
