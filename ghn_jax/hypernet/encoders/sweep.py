"""One sweep of the gated GNN over a padded batch, with its own backward pass.

Node i receives from nodes that were updated before it. Nodes are taken in blocks of consecutive rows, as a triangular
system is solved: what a block receives from all blocks before it is one matrix product, and within the block each
updated row adds its messages MLP(h_j) and MLP_ve(h_j) to what the others receive. So a step touches a block and not the
whole graph: O(N^2 D) a sweep, of which the loop over nodes does O(N B D). It runs as long as the largest graph, not as
its padding. The backward pass is the same in the opposite direction over the cotangents of what nodes received; weight
gradients are left to products over all nodes at once after the loop. Plain reverse-mode differentiation would instead
save the whole buffer at every step.

Nodes of equal depth could be updated together (1.9 times fewer steps of two rows each on training networks). On two CPU
cores that is no faster, for a step of two rows takes twice as long, and it needs rows in another order.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ghn_jax.hypernet.dense import PRECISION

BLOCK = 8
"""Rows of a block, B. On two CPU cores 8 is fastest: a step of the loop then takes as long as without any edges."""


class SweepWeights(NamedTuple):
    """Weights of the messages (MLP and MLP_ve side by side, C of them) and of the GRU.

    Attributes:
      message_in: (D, F) and its bias (F,): first layers of the C MLPs, one beside the other.
      message_out: (F, C * D) and its bias (C * D,): second layers, block-diagonal.
      input_kernel, hidden_kernel: (D, 3 D) of the GRU, gates r, z, n; input_bias, hidden_bias (3 D,).
    """

    message_in: jax.Array
    message_in_bias: jax.Array
    message_out: jax.Array
    message_out_bias: jax.Array
    input_kernel: jax.Array
    input_bias: jax.Array
    hidden_kernel: jax.Array
    hidden_bias: jax.Array


_product = functools.partial(jnp.matmul, precision=PRECISION)
_sum_over = functools.partial(jnp.einsum, precision=PRECISION)


def _affine(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return _product(inputs, kernel) + bias.reshape((1,) * (inputs.ndim - 1) + bias.shape)


def _messages(weights: SweepWeights, states: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(..., D) -> activations (..., F) of the first layer and (..., C * D) of the second."""
    hidden = jax.nn.relu(_affine(states, weights.message_in, weights.message_in_bias))
    return hidden, jax.nn.relu(_affine(hidden, weights.message_out, weights.message_out_bias))


def _gates(of_input: jax.Array, of_hidden: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gates r, z, n (..., D) of `torch.nn.GRUCell` from the two products (..., 3 D)."""
    input_r, input_z, input_n = jnp.split(of_input, 3, axis=-1)
    hidden_r, hidden_z, hidden_n = jnp.split(of_hidden, 3, axis=-1)
    reset = jax.nn.sigmoid(input_r + hidden_r)
    return reset, jax.nn.sigmoid(input_z + hidden_z), jnp.tanh(input_n + reset * hidden_n)


def _update(weights: SweepWeights, received: jax.Array, states: jax.Array) -> jax.Array:
    """GRU (..., D), (..., D) -> (..., D)."""
    of_input = _affine(received, weights.input_kernel, weights.input_bias)
    of_hidden = _affine(states, weights.hidden_kernel, weights.hidden_bias)
    _, update, candidate = _gates(of_input, of_hidden)
    return (1 - update) * candidate + update * states


def _row(array: jax.Array, row: jax.Array) -> jax.Array:
    """(G, N, ...) -> (G, ...) at `row`."""
    return jax.lax.dynamic_index_in_dim(array, row, axis=1, keepdims=False)


def _set_row(array: jax.Array, values: jax.Array, row: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(array, values, row, axis=1)


def _edge_weights(distance: jax.Array, channels: int) -> list[jax.Array]:
    """uint8 distances -> weights of each of the C kinds of messages: 1 for label 1 and, for virtual edges, 1 / s."""
    real = (distance == 1).astype(jnp.float32)
    if channels == 1:
        return [real]
    return [real, jnp.where(distance > 0, 1 / jnp.maximum(distance, 1).astype(jnp.float32), 0.0)]


class _Blocks(NamedTuple):
    """Blocks of rows in the order of a visit.

    Attributes:
      size: B, rows of a block; divides N.
      number: int (), blocks that hold the largest graph.
      reverse: whether they are visited from the last to the first, and so are their rows.
    """

    size: int
    number: jax.Array
    reverse: bool

    @classmethod
    def of(cls, nodes: int, num_steps: jax.Array, reverse: bool) -> "_Blocks":
        """Those of N padded rows."""
        size = math.gcd(nodes, BLOCK)
        return cls(size, (num_steps + size - 1) // size, reverse)

    def start(self, step: jax.Array) -> jax.Array:
        """First row of the block that is visited at a step."""
        return self.size * (self.number - 1 - step if self.reverse else step)

    def row(self, step: jax.Array) -> jax.Array:
        """Row within a block that is visited at a step."""
        return self.size - 1 - step if self.reverse else step

    def cut(self, array: jax.Array, start: jax.Array) -> jax.Array:
        """(G, N, ...) -> the rows (G, B, ...) of a block."""
        return jax.lax.dynamic_slice_in_dim(array, start, self.size, axis=1)

    def visited(self, nodes: int) -> jax.Array:
        """Bool (1, N, 1): rows of some block."""
        return (jnp.arange(nodes) < self.size * self.number)[None, :, None]


def _put(array: jax.Array, rows: jax.Array, start: jax.Array) -> jax.Array:
    """Replaces rows of (G, N, ...) from `start` on."""
    return jax.lax.dynamic_update_slice_in_dim(array, rows, start, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sweep(
    reverse: bool, weights: SweepWeights, states: jax.Array, incoming: jax.Array, num_steps: jax.Array
) -> jax.Array:
    """Updates every node once, in row order (`reverse`: from the last to the first).

    Args:
      reverse: direction of the visit.
      weights: of messages and GRU.
      states: (G, N, D).
      incoming: uint8 (G, N, N), [g, i, j] is the distance at which i receives from j, 0 for not at all; j must be
        visited before i.
      num_steps: int (), nodes of the largest graph.

    Returns:
      (G, N, D); rows of blocks that lie wholly behind `num_steps` are unchanged.
    """
    return _sweep_forward(reverse, weights, states, incoming, num_steps)[0]


def _sweep_forward(
    reverse: bool, weights: SweepWeights, states: jax.Array, incoming: jax.Array, num_steps: jax.Array
) -> tuple[jax.Array, tuple]:
    graphs, nodes, width = states.shape
    channels = weights.message_out.shape[1] // width
    blocks = _Blocks.of(nodes, num_steps, reverse)
    # Each node's old state is its GRU's hidden input: one product for all nodes, outside the loop.
    of_hidden = _affine(states, weights.hidden_kernel, weights.hidden_bias)

    def visit_block(step: jax.Array, carry: tuple) -> tuple:
        new_states, received, messages = carry
        start = blocks.start(step)
        rows = blocks.cut(incoming, start)
        before = sum(
            _sum_over("gbn,gnd->gbd", edges, sent)
            for edges, sent in zip(_edge_weights(rows, channels), messages, strict=True)
        )
        # Within the block: [g, j, i], from j to i.
        within = _edge_weights(jax.lax.dynamic_slice_in_dim(rows, start, blocks.size, axis=2).swapaxes(1, 2), channels)
        own_states, own_hidden = blocks.cut(states, start), blocks.cut(of_hidden, start)

        def visit_row(step: jax.Array, carry: tuple) -> tuple:
            new_rows, received_rows, message_rows = carry
            row = blocks.row(step)
            of_input = _affine(_row(received_rows, row), weights.input_kernel, weights.input_bias)
            _, update, candidate = _gates(of_input, _row(own_hidden, row))
            state = (1 - update) * candidate + update * _row(own_states, row)
            message = _messages(weights, state)[1]
            for edges, sent in zip(within, jnp.split(message, channels, axis=-1), strict=True):
                received_rows = received_rows + _row(edges, row)[:, :, None] * sent[:, None]
            return _set_row(new_rows, state, row), received_rows, _set_row(message_rows, message, row)

        empty = jnp.zeros((graphs, blocks.size, channels * width), states.dtype)
        rows = jax.lax.fori_loop(0, blocks.size, visit_row, (own_states, before, empty))
        sent = jnp.split(rows[2], channels, axis=-1)
        messages = [_put(array, own, start) for array, own in zip(messages, sent, strict=True)]
        return _put(new_states, rows[0], start), _put(received, rows[1], start), messages

    start = (states, jnp.zeros_like(states), [jnp.zeros_like(states)] * channels)
    new_states, received, _ = jax.lax.fori_loop(0, blocks.number, visit_block, start)
    return new_states, (weights, states, received, new_states, incoming, num_steps)


def _sweep_backward(reverse: bool, residuals: tuple, cotangent: jax.Array) -> tuple:
    weights, states, received, new_states, incoming, num_steps = residuals
    graphs, nodes, width = states.shape
    channels = weights.message_out.shape[1] // width
    blocks = _Blocks.of(nodes, num_steps, not reverse)
    of_hidden = _affine(states, weights.hidden_kernel, weights.hidden_bias)
    reset, update, candidate = _gates(_affine(received, weights.input_kernel, weights.input_bias), of_hidden)
    # Derivative of a new state by the three pre-activations of its gates, elementwise.
    of_candidate = (1 - update) * (1 - jnp.square(candidate))
    of_reset = of_candidate * of_hidden[..., 2 * width :] * reset * (1 - reset)
    of_update = (states - candidate) * update * (1 - update)
    slopes = jnp.concatenate([of_reset, of_update, of_candidate], axis=-1)
    hidden, messages = _messages(weights, new_states)
    message_on, hidden_on = messages > 0, hidden > 0
    outgoing = jnp.swapaxes(incoming, 1, 2)

    def visit_block(step: jax.Array, carry: tuple) -> tuple:
        to_received = carry[0]
        start = blocks.start(step)
        rows = blocks.cut(outgoing, start)
        after = [_sum_over("gbn,gnd->gbd", edges, to_received) for edges in _edge_weights(rows, channels)]
        # Within the block: [g, i, j], from j to i.
        within = _edge_weights(jax.lax.dynamic_slice_in_dim(rows, start, blocks.size, axis=2).swapaxes(1, 2), channels)
        own = [blocks.cut(array, start) for array in (cotangent, slopes, message_on, hidden_on)]

        def visit_row(step: jax.Array, carry: tuple) -> tuple:
            received_rows, state_rows, message_rows = carry
            row = blocks.row(step)
            own_cotangent, slope, message_is_on, hidden_is_on = (_row(array, row) for array in own)
            message = jnp.concatenate([_row(part, row) for part in message_rows], axis=-1)
            inner = _product(jnp.where(message_is_on, message, 0.0), weights.message_out.T)
            state = _product(jnp.where(hidden_is_on, inner, 0.0), weights.message_in.T) + own_cotangent
            now = _product(jnp.concatenate([state] * 3, axis=-1) * slope, weights.input_kernel.T)
            message_rows = [
                part + _row(edges, row)[:, :, None] * now[:, None]
                for edges, part in zip(within, message_rows, strict=True)
            ]
            return _set_row(received_rows, now, row), _set_row(state_rows, state, row), message_rows

        rows = (blocks.cut(to_received, start), own[0], after)
        rows = jax.lax.fori_loop(0, blocks.size, visit_row, rows)
        own_rows = rows[0], rows[1], jnp.concatenate(rows[2], axis=-1)
        return tuple(_put(array, part, start) for array, part in zip(carry, own_rows, strict=True))

    start = (jnp.zeros_like(states), cotangent, jnp.zeros((graphs, nodes, channels * width), states.dtype))
    _, to_states, to_messages = jax.lax.fori_loop(0, blocks.number, visit_block, start)

    visited = blocks.visited(nodes)
    updated = jnp.where(visited, to_states, 0.0)
    (by_messages,) = jax.vjp(lambda w: _messages(w, new_states)[1], weights)[1](to_messages)
    by_update, to_old_states = jax.vjp(lambda w, s: _update(w, received, s), weights, states)[1](updated)
    to_weights = jax.tree.map(jnp.add, by_messages, by_update)
    return to_weights, to_old_states + jnp.where(visited, 0.0, cotangent), None, None


sweep.defvjp(_sweep_forward, _sweep_backward)
