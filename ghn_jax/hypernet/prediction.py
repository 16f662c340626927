"""Prediction: encode the graphs, decode tensors in groups, fit each, assemble; and the gradient back (paper, Eq. 2)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import Path, stack_leaf
from ghn_jax.hypernet import programs
from ghn_jax.hypernet.ghn import GHN, Variables, split_weights
from ghn_jax.hypernet.grouping import Chunk, Member, PreparedBatch, prepare
from ghn_jax.threads import shares, side_by_side

FlatParams = dict[Path, jax.Array]
"""Parameters of one network: {path: array}."""

PredictionVJP = Callable[[Sequence[Mapping[Path, jax.Array]]], Variables]
"""Cotangents of every network's parameters -> gradient, a pytree like the GHN's variables."""

Tensors = dict[tuple[int, Path, tuple[int, ...]], jax.Array]
"""Arrays by architecture, path and index."""


class _Decoded(NamedTuple):
    """What the backward pass needs of a chunk.

    Attributes:
      chunk: the chunk.
      rows: (B, D), states that were decoded.
      shape: shape and type (B, ...) of what they were decoded to.
      kept: that itself, where the fitting of some piece is not linear.
      fit_backward: of each piece.
    """

    chunk: Chunk
    rows: jax.Array
    shape: jax.ShapeDtypeStruct
    kept: jax.Array | None
    fit_backward: list[programs.FitBackward]


def predict_params(ghn: GHN, variables: Variables, graphs: Sequence[ArchGraph] | PreparedBatch) -> list[FlatParams]:
    """Parameters of every architecture, in the order of the graphs.

    Args:
      ghn: the hypernetwork.
      variables: its weights.
      graphs: architectures, or what `prepare` made of them.

    Raises:
      ValueError: where `prepare` does.
    """
    prepared = _prepared(ghn, graphs)
    states = programs.embed_program(ghn)(variables, prepared.batch)
    return decode_states(ghn, variables, states, prepared)


def decode_states(ghn: GHN, variables: Variables, states: jax.Array, prepared: PreparedBatch) -> list[FlatParams]:
    """Parameters of every architecture from the states (G, N, D) of `prepared.batch`."""
    _, weights = split_weights(variables)
    tensors: Tensors = {}
    for chunk in prepared.chunks:
        rows = programs.take_rows(states, chunk.nodes)
        tensors.update(_fit(ghn, chunk, programs.decode_program(ghn, chunk.key)(weights, rows)))
    return _assemble(prepared, tensors)


def predict_with_vjp(
    ghn: GHN, variables: Variables, graphs: Sequence[ArchGraph] | PreparedBatch, *, threads: int = 1
) -> tuple[list[FlatParams], PredictionVJP]:
    """Parameters of every architecture, and the exact gradient for their cotangents.

    Compiled programs are reused across architectures. Everything runs where `variables` are, so a device of a mesh can
    predict its own share of a meta-batch from its own copy of the weights.

    Args:
      ghn: the hypernetwork.
      variables: its weights.
      graphs: architectures, or what `prepare` made of them.
      threads: chunks that are decoded side by side, for backends where a program takes a core; sums of gradients are
        added in another order for each number of them.

    Returns:
      One {path: array} per architecture, and a function from their cotangents (same keys; a missing one counts as zero)
      to the gradient, a pytree like `variables`.

    Raises:
      ValueError: where `prepare` does.
    """
    prepared = _prepared(ghn, graphs)
    of_encoder, weights = split_weights(variables)
    states, embed_vjp = programs.embed_with_vjp_program(ghn)(of_encoder, prepared.batch)
    decoded = side_by_side(lambda chunk: _decode(ghn, weights, states, chunk), prepared.chunks, threads)
    tensors: Tensors = {path: tensor for _, own in decoded for path, tensor in own.items()}
    kept = [own for own, _ in decoded]
    del decoded
    parts = shares([math.prod(own.shape.shape) for own in kept], min(threads, max(len(kept), 1)))

    def vjp(cotangents: Sequence[Mapping[Path, jax.Array]]) -> Variables:
        if len(cotangents) != len(prepared.graphs):
            raise ValueError(f"expected cotangents of {len(prepared.graphs)} networks, got {len(cotangents)}")

        def of_part(part: Sequence[int]) -> tuple[jax.Array, programs.Weights]:
            to_states, to_weights = programs.zeros_like((states, weights))
            for own in (kept[number] for number in part):
                to_decoded = _fit_backward(own, cotangents)
                if to_decoded is not None:
                    backward = programs.decode_backward_program(ghn, own.chunk.key)
                    to_weights, to_rows = backward(to_weights, weights, own.rows, to_decoded)
                    to_states = programs.add_rows(to_states, to_rows, own.chunk.nodes)
            return to_states, to_weights

        total, *others = side_by_side(of_part, parts, threads)
        for other in others:
            total = programs.add_trees(total, other)
        to_states, to_weights = total
        return {"params": {**programs.apply_vjp(embed_vjp, to_states), **to_weights}}

    return _assemble(prepared, tensors), vjp


def _decode(ghn: GHN, weights: programs.Weights, states: jax.Array, chunk: Chunk) -> tuple[_Decoded, Tensors]:
    """What the backward pass of a chunk needs, and the chunk's tensors."""
    rows = programs.take_rows(states, chunk.nodes)
    slabs = programs.decode_program(ghn, chunk.key)(weights, rows)
    backward = [programs.fit_backward(ghn, piece.kind, len(piece.members), slabs.shape[1:]) for piece in chunk.pieces]
    kept = slabs if any(piece.needs_decoded for piece in backward) else None
    shape = jax.ShapeDtypeStruct(slabs.shape, slabs.dtype)
    return _Decoded(chunk, rows, shape, kept, backward), _fit(ghn, chunk, slabs)


def compile_for(ghn: GHN, variables: Variables, prepared: PreparedBatch, device: programs.Device | None = None) -> None:
    """Compiles what `predict_with_vjp` of a prepared batch and its vjp need, by running them once on zero cotangents.

    Only `prepared.programs()` decides what is compiled, so a caller can skip batches that need nothing new.

    Args:
      ghn: the hypernetwork.
      variables: weights, or anything of their shapes, on the device that is to run.
      prepared: what `prepare` made of graphs.
      device: that the cotangents will be committed to (as `jax.device_put` does); None if to none. JAX compiles a
        program once for either.
    """
    networks, vjp = predict_with_vjp(ghn, variables, prepared)

    def zeros(leaf: jax.Array) -> Any:
        own = np.zeros(leaf.shape, leaf.dtype)  # not JAX's, which would be one more program for each shape
        return own if device is None else jax.device_put(own, device)

    jax.block_until_ready(vjp(jax.tree.map(zeros, networks)))


def _prepared(ghn: GHN, graphs: Sequence[ArchGraph] | PreparedBatch) -> PreparedBatch:
    return graphs if isinstance(graphs, PreparedBatch) else prepare(ghn.config, graphs)


def _fit(ghn: GHN, chunk: Chunk, decoded: jax.Array) -> Tensors:
    """Every tensor of a chunk."""
    tensors: Tensors = {}
    for start, members in chunk.pieces:
        fit = programs.fit_program(ghn, members[0].kind, len(members))
        fitted = fit(decoded, np.int32(start))
        tensors.update(zip((member.tensor for member in members), fitted, strict=True))
    return tensors


def _fit_backward(own: _Decoded, cotangents: Sequence[Mapping[Path, jax.Array]]) -> jax.Array | None:
    """Cotangent of what a chunk was decoded to; None if no tensor of it has one."""
    values = [
        [_cotangent(cotangents[member.architecture], member) for member in piece.members] for piece in own.chunk.pieces
    ]
    given = [value for piece in values for value in piece if value is not None]
    if not given:
        return None
    total = programs.zeros(own.shape.shape, own.rows)
    for piece, found, (needs_decoded, backward) in zip(own.chunk.pieces, values, own.fit_backward, strict=True):
        if all(value is None for value in found):
            continue
        filled = [np.zeros(piece.kind.shape, np.float32) if value is None else value for value in found]
        total = backward(total, own.kept if needs_decoded else None, np.int32(piece.start), filled)
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
            flat[path] = stack_leaf(parts, f"parameter {'/'.join(path)!r} of architecture {graph.name!r}")
        networks.append(flat)
    return networks
