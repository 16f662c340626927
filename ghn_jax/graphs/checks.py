"""What an architecture graph must keep: indices in range, one input, every node on a path, specs that fit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ghn_jax.graphs.param_spec import ParamSpec, Path
from ghn_jax.graphs.vocabulary import Primitive

_PRIMITIVES = tuple(Primitive)
_LARGEST = np.iinfo(np.int32).max


def check_indices(name: str, types: np.ndarray, edges: np.ndarray, params: Sequence[ParamSpec]) -> None:
    """Raises ValueError for unknown types and for edges or specs that point outside the graph."""
    count = len(types) if types.ndim == 1 else 0
    if count == 0:
        raise ValueError(f"architecture {name!r} has no nodes")
    unknown = np.flatnonzero((types < 0) | (types >= len(Primitive)))
    if len(unknown):
        raise ValueError(f"architecture {name!r}: node {unknown[0]} has the unknown type {types[unknown[0]]}")
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"architecture {name!r}: edges must be rows (from, to), got an array of shape {edges.shape}")
    if len(edges):
        outside = np.flatnonzero(((edges < 0) | (edges >= count)).any(axis=1))
        if len(outside):
            raise ValueError(
                f"architecture {name!r}: edge {tuple(edges[outside[0]].tolist())} leaves the range of its {count} nodes"
            )
        loops = np.flatnonzero(edges[:, 0] == edges[:, 1])
        if len(loops):
            raise ValueError(f"architecture {name!r}: cycle, node {edges[loops[0], 0]} is its own successor")
    nodes = [spec.node for spec in params]
    if nodes and not (min(nodes) >= 0 and max(nodes) < count):
        spec = next(spec for spec in params if not 0 <= spec.node < count)
        raise ValueError(
            f"architecture {name!r}: parameter {spec.name!r} points to node {spec.node}, which is out of range"
        )


def whole_numbers(name: str, what: str, values: Any) -> np.ndarray:
    """An int64 array of whole numbers, of whatever type they are.

    Raises:
      ValueError: for anything else; names the architecture.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "iuf" or not (np.rint(array) == array).all():
        raise ValueError(f"architecture {name!r}: {what} must be an array of whole numbers, got {str(values)[:80]}")
    if array.size and not -_LARGEST <= array.min() <= array.max() <= _LARGEST:
        raise ValueError(
            f"architecture {name!r}: {what} must be at most {_LARGEST:,}, got {array.max()}, {array.min()}"
        )
    return array.astype(np.int64)


def check_paths_of_leaves(name: str, params: Sequence[ParamSpec]) -> None:
    """Raises ValueError for tensors of which no pytree of parameters can be made."""
    indices: dict[Path, set[int]] = {}
    for spec in params:
        indices.setdefault(spec.path, set()).add(len(spec.index))
    for path, depths in indices.items():
        if len(depths) > 1:
            raise ValueError(f"architecture {name!r}: {'/'.join(path)!r} is stacked in {sorted(depths)} axes at once")
        inside = next((path[:end] for end in range(len(path)) if path[:end] in indices), None)
        if inside is not None:
            raise ValueError(
                f"architecture {name!r}: {'/'.join(inside)!r} is a parameter and holds the parameter {'/'.join(path)!r}"
            )


def check_graph(
    name: str, types: np.ndarray, shapes: np.ndarray, edges: np.ndarray, params: Sequence[ParamSpec]
) -> None:
    """Raises ValueError for anything that `ArchGraph` promises and a graph does not keep; names both."""
    arrays: tuple[Any, ...] = (types, shapes, edges)
    if not all(isinstance(array, np.ndarray) and array.dtype.kind == "i" for array in arrays):
        raise ValueError(f"architecture {name!r}: nodes, shapes and edges must be integer arrays; use ArchGraph.build")
    check_indices(name, types, edges, params)
    count = len(types)
    if shapes.shape != (count, 4):
        raise ValueError(f"architecture {name!r}: node_shapes must be ({count}, 4), got {shapes.shape}")
    if shapes.min() < 0:
        row = int(np.flatnonzero((shapes < 0).any(axis=1))[0])
        raise ValueError(f"architecture {name!r}: node {row} has the negative shape {tuple(shapes[row].tolist())}")
    if len(edges) and not (edges[:, 0] < edges[:, 1]).all():
        raise ValueError(f"architecture {name!r}: rows are not in topological order; use ArchGraph.build")
    inputs = np.flatnonzero(types == Primitive.INPUT)
    if len(inputs) != 1 or inputs[0] != 0:
        raise ValueError(
            f"architecture {name!r}: the first node must be its only input, found inputs at {inputs.tolist()}"
        )
    _check_paths(name, types, edges)
    primitives = [_PRIMITIVES[kind] for kind in types.tolist()]
    for spec in params:
        spec.check(primitives[spec.node], name)
    tensors = [(spec.path, spec.index) for spec in params]
    if len(set(tensors)) < len(tensors):
        twice = next(spec for place, spec in enumerate(params) if (spec.path, spec.index) in tensors[:place])
        raise ValueError(f"architecture {name!r}: the parameter {twice.name!r} is listed twice")


def _check_paths(name: str, types: np.ndarray, edges: np.ndarray) -> None:
    """Every node but a position table follows from the input; every node leads to the last one."""
    count = len(types)
    has_successor = np.zeros(count, bool)
    has_successor[edges[:, 0]] = True
    has_successor[-1] = True
    has_predecessor = np.zeros(count, bool)
    has_predecessor[edges[:, 1]] = True
    has_predecessor |= (types == Primitive.INPUT) | (types == Primitive.POS_ENC)
    # In a DAG whose only sink is the last node and whose only sources are the input and position tables,
    # every node lies on a path: no search is needed.
    for mask, what in (
        (has_successor, "does not reach the last node"),
        (has_predecessor, "has no path from the input"),
    ):
        bad = np.flatnonzero(~mask)
        if len(bad):
            node = bad[0]
            raise ValueError(f"architecture {name!r}: node {node} ({Primitive(int(types[node])).label}) {what}")
