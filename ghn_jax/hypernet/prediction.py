"""Prediction of whole networks, and the way back of their gradients."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import Path, Role
from ghn_jax.hypernet import programs
from ghn_jax.hypernet.ghn import GHN
from ghn_jax.hypernet.grouping import Chunk, Member, PreparedBatch, prepare
from ghn_jax.hypernet.programs import VECTORS_AT_ONCE, Variables

FlatParams = dict[Path, jax.Array]
"""Parameters of one network: {path: array}."""

PredictionVJP = Callable[[Sequence[Mapping[Path, jax.Array]]], Variables]
"""Cotangents of every network's parameters -> gradient, a pytree like the GHN's variables."""

Tensors = dict[tuple[int, Path, tuple[int, ...]], jax.Array]
"""Arrays by architecture, path and index."""


class _Decoded(NamedTuple):
    """What the backward pass needs of a chunk; vectors keep their slab, since fitting them is not linear."""

    chunk: Chunk
    rows: jax.Array
    slab: jax.Array | None


def predict_params(ghn: GHN, variables: Variables, graphs: Sequence[ArchGraph] | PreparedBatch) -> list[FlatParams]:
    """Parameters of every architecture, in the order of the graphs.

    Args:
      ghn: the hypernetwork.
      variables: its weights.
      graphs: architectures, or what `prepare` made of them.

    Raises:
      ValueError: for a graph above the largest bucket or a classifier that the GHN does not predict.
    """
    return predict_from_states(ghn, variables, *_states(ghn, variables, graphs))


def predict_from_states(
    ghn: GHN, variables: Variables, states: jax.Array, prepared: PreparedBatch
) -> list[FlatParams]:
    """As `predict_params`, from the states (G, N, D) of `prepared.batch`."""
    tensors: Tensors = {}
    for chunk in prepared.chunks:
        _decode_and_fit(ghn, variables, states, chunk, tensors)
    return _assemble(prepared, tensors)


def predict_with_vjp(
    ghn: GHN, variables: Variables, graphs: Sequence[ArchGraph] | PreparedBatch
) -> tuple[list[FlatParams], PredictionVJP]:
    """Parameters of every architecture, and the exact gradient for their cotangents.

    Compiled programs are reused across architectures. Everything runs where `variables` are, so a device of a mesh can
    predict its own share of a meta-batch from its own copy of the weights.

    Args:
      ghn: the hypernetwork.
      variables: its weights.
      graphs: architectures, or what `prepare` made of them.

    Returns:
      One {path: array} per architecture, and a function from their cotangents (same keys; a missing one counts as zero)
      to the gradient, a pytree like `variables`.

    Raises:
      ValueError: for a graph above the largest bucket or a classifier that the GHN does not predict.
    """
    prepared = graphs if isinstance(graphs, PreparedBatch) else prepare(ghn.config, graphs)
    states, states_vjp = programs.embed_with_vjp_program(ghn)(variables, prepared.batch)
    tensors: Tensors = {}
    decoded = [_decode_and_fit(ghn, variables, states, chunk, tensors) for chunk in prepared.chunks]

    def vjp(cotangents: Sequence[Mapping[Path, jax.Array]]) -> Variables:
        if len(cotangents) != len(prepared.graphs):
            raise ValueError(f"expected cotangents of {len(prepared.graphs)} networks, got {len(cotangents)}")
        to_states, decoders = programs.zeros_like(
            (states, {name: variables["params"][name] for name in ("decoder", "decoder_1d")})
        )
        for part in decoded:
            slab = _fold(ghn, part, cotangents)
            if slab is None:
                continue
            name = programs.module_name(part.chunk.key)
            backward = programs.decode_backward_program(ghn, part.chunk.key)
            decoders[name], to_rows = backward(decoders[name], variables["params"][name], part.rows, slab)
            to_states = programs.add_rows(to_states, to_rows, part.chunk.nodes)
        gradient = programs.apply_vjp(states_vjp, to_states)
        return {**gradient, "params": {**gradient["params"], **decoders}}

    return _assemble(prepared, tensors), vjp


def _states(
    ghn: GHN, variables: Variables, graphs: Sequence[ArchGraph] | PreparedBatch
) -> tuple[jax.Array, PreparedBatch]:
    prepared = graphs if isinstance(graphs, PreparedBatch) else prepare(ghn.config, graphs)
    return programs.embed_program(ghn)(variables, prepared.batch), prepared


def _decode_and_fit(ghn: GHN, variables: Variables, states: jax.Array, chunk: Chunk, tensors: Tensors) -> _Decoded:
    rows = programs.take_rows(states, chunk.nodes)
    weights = variables["params"][programs.module_name(chunk.key)]
    slab = programs.decode_program(ghn, chunk.key)(weights, rows)
    if chunk.key.has_slabs:
        for member in chunk.members:
            tensors[member.key] = programs.fit_kernel_program(ghn, member.kind)(slab[member.row])
        return _Decoded(chunk, rows, None)
    for shape, members in _by_shape(chunk.members):
        fit = programs.fit_vectors_program(ghn, shape)
        for part in _parts(members):
            vectors = fit(slab, *_vector_rows(part, len(chunk.nodes)))
            for member, vector in zip(part, vectors, strict=False):
                tensors[member.key] = vector
    return _Decoded(chunk, rows, slab)


def _fold(
    ghn: GHN, part: _Decoded, cotangents: Sequence[Mapping[Path, jax.Array]]
) -> jax.Array | tuple[jax.Array, ...] | None:
    """Cotangent of a chunk's slab, whole or row by row; None if no tensor of the chunk has one."""
    given = {member: _cotangent(cotangents[member.architecture], member) for member in part.chunk.members}
    values = {member: value for member, value in given.items() if value is not None}
    if not values:
        return None
    shape, count = programs.row_shape(ghn, part.chunk.key), len(part.chunk.nodes)
    if part.slab is None:
        rows: list[jax.Array] = [programs.zero_row(shape)] * count
        for member, value in values.items():
            rows[member.row] = programs.fold_kernel_program(ghn, member.kind, shape)(value)
        return tuple(rows)
    slab = programs.zeros_like(part.slab)
    for vector_shape, members in _by_shape(values):
        fold = programs.fold_vectors_program(ghn, vector_shape)
        for some in _parts(members):
            vectors = [values[member] for member in some]
            vectors += [vectors[0]] * (VECTORS_AT_ONCE - len(vectors))
            slab = fold(slab, part.slab, *_vector_rows(some, count), tuple(vectors))
    return slab


def _cotangent(cotangents: Mapping[Path, jax.Array], member: Member) -> jax.Array | None:
    value = cotangents.get(member.spec.path)
    return value if value is None or not member.spec.index else value[member.spec.index]


def _by_shape(members: Iterable[Member]) -> list[tuple[tuple[int, ...], list[Member]]]:
    groups = collections.defaultdict(list)
    for member in members:
        groups[member.spec.shape].append(member)
    return list(groups.items())


def _parts(members: Sequence[Member]) -> list[Sequence[Member]]:
    return [members[start : start + VECTORS_AT_ONCE] for start in range(0, len(members), VECTORS_AT_ONCE)]


def _vector_rows(members: Sequence[Member], out_of_range: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows int32 (V,) of a part and which are norm weights; padding reads some row and its writes are dropped."""
    rows = np.full(VECTORS_AT_ONCE, out_of_range, np.int32)
    rows[: len(members)] = [member.row for member in members]
    is_scale = np.zeros(VECTORS_AT_ONCE, bool)
    is_scale[: len(members)] = [member.spec.role is Role.SCALE for member in members]
    return rows, is_scale


def _assemble(prepared: PreparedBatch, tensors: Tensors) -> list[FlatParams]:
    """One {path: array} per architecture, in the order of its specs; indexed tensors are stacked into their leaf."""
    networks: list[FlatParams] = []
    for architecture, graph in enumerate(prepared.graphs):
        flat: FlatParams = {}
        stacks: dict[Path, dict[tuple[int, ...], jax.Array]] = {}
        for spec in graph.params:
            tensor = tensors.get((architecture, spec.path, spec.index))
            if tensor is None:
                continue
            if spec.index:
                stacks.setdefault(spec.path, {})[spec.index] = tensor
            else:
                flat[spec.path] = tensor
        for path, parts in stacks.items():
            flat[path] = _stack(parts, f"parameter {'/'.join(path)!r} of architecture {graph.name!r}")
        networks.append(flat)
    return networks


def _stack(parts: Mapping[tuple[int, ...], jax.Array], where: str) -> jax.Array:
    """Tensors by index -> one leaf with the indices as leading axes."""
    lead = tuple(max(sizes) + 1 for sizes in zip(*parts, strict=True))
    missing = [index for index in np.ndindex(lead) if index not in parts]
    if missing:
        raise ValueError(f"{where}: the graph has no tensor for index {missing[0]} of a leaf stacked as {lead}")
    tensors = jnp.stack([parts[index] for index in np.ndindex(lead)])
    return tensors.reshape(*lead, *tensors.shape[1:])
