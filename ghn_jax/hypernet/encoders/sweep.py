"""One sweep of the gated GNN over a padded batch, with its own backward pass.

Node i receives from nodes that were updated before it, so their messages MLP(h_j) and MLP_ve(h_j) are kept in one
buffer of which each step reads a weighted sum and writes one row: O(N^2 D) a sweep. The loop runs as long as the
largest graph, not as its padding. The backward pass is the same loop in the opposite direction over the cotangents of
what nodes received; weight gradients are left to products over all nodes at once after the loop. Plain reverse-mode
differentiation would instead save the whole buffer at every step.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ghn_jax.hypernet.dense import PRECISION


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


def _row(array: jax.Array, node: jax.Array) -> jax.Array:
    """(G, N, ...) -> (G, ...) at `node`."""
    return jax.lax.dynamic_index_in_dim(array, node, axis=1, keepdims=False)


def _set_row(array: jax.Array, row: jax.Array, node: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(array, row, node, axis=1)


def _edge_weights(distance: jax.Array, channels: int) -> jax.Array:
    """uint8 (G, N) distances -> (G, C, N): 1 for label 1 and, for virtual edges, 1 / s."""
    real = (distance == 1).astype(jnp.float32)
    if channels == 1:
        return real[:, None]
    virtual = jnp.where(distance > 0, 1 / jnp.maximum(distance, 1).astype(jnp.float32), 0.0)
    return jnp.stack([real, virtual], axis=1)


def _visit(step: jax.Array, num_steps: jax.Array, reverse: bool) -> jax.Array:
    return num_steps - 1 - step if reverse else step


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
      (G, N, D); rows from `num_steps` on are unchanged.
    """
    return _sweep_forward(reverse, weights, states, incoming, num_steps)[0]


def _sweep_forward(
    reverse: bool, weights: SweepWeights, states: jax.Array, incoming: jax.Array, num_steps: jax.Array
) -> tuple[jax.Array, tuple]:
    graphs, nodes, width = states.shape
    channels = weights.message_out.shape[1] // width
    # Each node's old state is its GRU's hidden input: one product for all nodes, outside the loop.
    of_hidden = _affine(states, weights.hidden_kernel, weights.hidden_bias)

    def body(step: jax.Array, carry: tuple) -> tuple:
        new_states, received, buffer = carry
        node = _visit(step, num_steps, reverse)
        edge_weights = _edge_weights(_row(incoming, node), channels)
        now = _sum_over("gcn,gcnd->gd", edge_weights, buffer)
        of_input = _affine(now, weights.input_kernel, weights.input_bias)
        _, update, candidate = _gates(of_input, _row(of_hidden, node))
        state = (1 - update) * candidate + update * _row(states, node)
        message = _messages(weights, state)[1].reshape(graphs, channels, width)
        buffer = jax.lax.dynamic_update_index_in_dim(buffer, message, node, axis=2)
        return _set_row(new_states, state, node), _set_row(received, now, node), buffer

    start = (states, jnp.zeros_like(states), jnp.zeros((graphs, channels, nodes, width), states.dtype))
    new_states, received, _ = jax.lax.fori_loop(0, num_steps, body, start)
    return new_states, (weights, states, received, new_states, incoming, num_steps)


def _sweep_backward(reverse: bool, residuals: tuple, cotangent: jax.Array) -> tuple:
    weights, states, received, new_states, incoming, num_steps = residuals
    graphs, nodes, width = states.shape
    channels = weights.message_out.shape[1] // width
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

    def body(step: jax.Array, carry: tuple) -> tuple:
        to_received, to_states, to_messages = carry
        node = _visit(step, num_steps, not reverse)
        edge_weights = _edge_weights(_row(outgoing, node), channels)
        message = _sum_over("gcn,gnd->gcd", edge_weights, to_received).reshape(graphs, channels * width)
        inner = _product(jnp.where(_row(message_on, node), message, 0.0), weights.message_out.T)
        state = _product(jnp.where(_row(hidden_on, node), inner, 0.0), weights.message_in.T) + _row(cotangent, node)
        now = _product(jnp.concatenate([state] * 3, axis=-1) * _row(slopes, node), weights.input_kernel.T)
        return _set_row(to_received, now, node), _set_row(to_states, state, node), _set_row(to_messages, message, node)

    start = (jnp.zeros_like(states), cotangent, jnp.zeros((graphs, nodes, channels * width), states.dtype))
    _, to_states, to_messages = jax.lax.fori_loop(0, num_steps, body, start)

    visited = (jnp.arange(nodes) < num_steps)[None, :, None]
    updated = jnp.where(visited, to_states, 0.0)
    (by_messages,) = jax.vjp(lambda w: _messages(w, new_states)[1], weights)[1](to_messages)
    by_update, to_old_states = jax.vjp(lambda w, s: _update(w, received, s), weights, states)[1](updated)
    to_weights = jax.tree.map(jnp.add, by_messages, by_update)
    return to_weights, to_old_states + jnp.where(visited, 0.0, cotangent), None, None


sweep.defvjp(_sweep_forward, _sweep_backward)
