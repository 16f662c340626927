"""Prediction of whole networks, and the way back of their gradients."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import Path
from ghn_jax.hypernet import programs
from ghn_jax.hypernet.ghn import GHN
from ghn_jax.hypernet.grouping import Chunk, Member, PreparedBatch, prepare
from ghn_jax.hypernet.programs import Variables

FlatParams = dict[Path, jax.Array]
"""Parameters of one network: {path: array}."""

PredictionVJP = Callable[[Sequence[Mapping[Path, jax.Array]]], Variables]
"""Cotangents of every network's parameters -> gradient, a pytree like the GHN's variables."""

Tensors = dict[tuple[int, Path, tuple[int, ...]], jax.Array]
"""Arrays by architecture, path and index."""


class _Decoded(NamedTuple):
    """What the backward pass needs of a chunk; vectors stay, since fitting them is not linear."""

    chunk: Chunk
    rows: jax.Array
    vectors: jax.Array | None


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


def predict_from_states(ghn: GHN, variables: Variables, states: jax.Array, prepared: PreparedBatch) -> list[FlatParams]:
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
            cotangent = _fold(ghn, part, cotangents)
            if cotangent is None:
                continue
            name = programs.module_name(part.chunk.key)
            backward = programs.decode_backward_program(ghn, part.chunk.key)
            decoders[name], to_rows = backward(decoders[name], variables["params"][name], part.rows, cotangent)
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
    decoded = programs.decode_program(ghn, chunk.key)(weights, rows)
    if chunk.key.has_slabs:
        for member in chunk.members:
            fit = programs.fit_kernel_program(ghn, member.kind)
            tensors[member.key] = fit(programs.take_slab(decoded, np.int32(member.row)))
        return _Decoded(chunk, rows, None)
    for member in chunk.members:
        fit = programs.fit_vector_program(ghn, member.spec.shape)
        tensors[member.key] = fit(decoded, programs.vector_place(member.row, member.spec.role))
    return _Decoded(chunk, rows, decoded)


def _fold(ghn: GHN, part: _Decoded, cotangents: Sequence[Mapping[Path, jax.Array]]) -> jax.Array | None:
    """Cotangent of what was decoded in a chunk; None if no tensor of it has one."""
    given = [(member, _cotangent(cotangents[member.architecture], member)) for member in part.chunk.members]
    values = [(member, value) for member, value in given if value is not None]
    if not values:
        return None
    shape = programs.row_shape(ghn, part.chunk.key)
    total = programs.zeros_program((len(part.chunk.nodes), *shape))()
    for member, value in values:
        if part.vectors is None:
            row = programs.fold_kernel_program(ghn, member.kind, shape)(value)
            total = programs.put_slab(total, row, np.int32(member.row))
        else:
            place = programs.vector_place(member.row, member.spec.role)
            total = programs.fold_vector_program(ghn, member.spec.shape)(total, part.vectors, place, value)
    return total


def _cotangent(cotangents: Mapping[Path, jax.Array], member: Member) -> jax.Array | None:
    value = cotangents.get(member.spec.path)
    return value if value is None or not member.spec.index else value[member.spec.index]


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
