"""The hypernetwork written down literally from the equations, one node and one tensor at a time: slow, to compare with."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.graphs import ArchGraph, ParamSpec, Role
from ghn_jax.hypernet import GHNConfig
from ghn_jax.hypernet.shape_encoder import channel_table, spatial_table

Weights = Any


def affine(layer: Weights, x: jax.Array) -> jax.Array:
    output = jnp.tensordot(x, layer["kernel"], 1)
    return output + jnp.broadcast_to(layer["bias"], output.shape)


def two_layers(mlp: Weights, x: jax.Array) -> jax.Array:
    return affine(mlp["fc_2"], jax.nn.relu(affine(mlp["fc_0"], x)))


def gru(weights: Weights, m: jax.Array, h: jax.Array) -> jax.Array:
    d = len(h)
    i = m @ weights["input_kernel"] + weights["input_bias"]
    j = h @ weights["hidden_kernel"] + weights["hidden_bias"]
    r, z = jax.nn.sigmoid(i[:d] + j[:d]), jax.nn.sigmoid(i[d : 2 * d] + j[d : 2 * d])
    n = jnp.tanh(i[2 * d :] + r * j[2 * d :])
    return (1 - z) * n + z * h


def message_passing(
    config: GHNConfig, weights: Weights, distances: np.ndarray, hidden: list[jax.Array]
) -> list[jax.Array]:
    names = ("mlp", "mlp_ve") if config.virtual_edges else ("mlp",)
    for _ in range(config.rounds):
        for reverse in (False, True)[: 2 if config.backward_sweep else 1]:
            messages = {}
            for i in range(len(hidden))[:: -1 if reverse else 1]:
                heard = jnp.zeros(config.hid)
                for j, message in messages.items():
                    s = float(distances[i, j] if reverse else distances[j, i])
                    if s == 1:
                        heard += message["mlp"]
                    if s and config.virtual_edges:
                        heard += message["mlp_ve"] / s
                hidden[i] = gru(weights["gru"], heard, hidden[i])
                messages[i] = {name: jax.nn.relu(two_layers(weights[name], hidden[i])) for name in names}
    return hidden


def states(config: GHNConfig, params: Weights, graph: ArchGraph) -> list[jax.Array]:
    hidden = []
    channels, spatial = channel_table(config.num_classes), spatial_table(config.max_shape[3])
    encoder = params["encoder"]
    for kind, shape in zip(graph.node_types, graph.node_shapes, strict=True):
        h = encoder["embed"][int(kind)]
        if config.shape_encoding:
            shapes = encoder["shape_enc"]
            rows = [shapes["embed_channel"][channels[min(s, len(channels) - 1)]] for s in shape[:2]]
            rows += [shapes["embed_spatial"][spatial[min(s, len(spatial) - 1)]] for s in shape[2:]]
            h = h + jnp.concatenate(rows)
        hidden.append(h)
    if config.hypernet == "mlp":
        hidden = [jax.nn.relu(two_layers(params["gnn"]["fc"], h)) for h in hidden]
    else:
        hidden = message_passing(config, params["gnn"], graph.distances(config.cutoff), hidden)
    if config.layernorm:
        scale, bias = params["ln"]["scale"], params["ln"]["bias"]
        hidden = [(h - h.mean()) / jnp.sqrt(h.var() + 1e-5) * scale + bias for h in hidden]
    return hidden


def slab(config: GHNConfig, decoder: Weights, h: jax.Array) -> jax.Array:
    """Whole slab (S, S, I, O)."""
    if config.decoder == "mlp":
        return two_layers(decoder["mlp"], h)
    hidden = jax.nn.relu(affine(decoder["conv_0"], jax.nn.relu(affine(decoder["fc"], h))))
    return affine(decoder["conv_2"], hidden)


def tensor(config: GHNConfig, params: Weights, h: jax.Array, spec: ParamSpec) -> jax.Array:
    out_size, in_size, height, width = spec.canonical_shape
    rows, columns, size, _ = config.max_shape
    decoder, decoder_1d = params["decoder"], params["decoder_1d"]
    if spec.rank == 1:
        both = two_layers(decoder_1d["mlp"], h)
        if spec.role is Role.CLASSIFIER_BIAS:
            both = affine(decoder_1d["bias_class"], jax.nn.relu(both))
        vector = jnp.resize(both[0 if spec.role is Role.SCALE else 1], spec.shape)
        if config.normalization == "none":
            return vector
        return 2 * jax.nn.sigmoid(vector / 2) if spec.role is Role.SCALE else jnp.tanh(vector / 5)
    if spec.role is Role.CLASSIFIER_KERNEL and config.decoder == "mlp":
        whole = affine(decoder["class_layer_predictor"], jax.nn.relu(affine(decoder["mlp"]["fc_0"], h)))[None, None]
    else:
        whole = slab(config, decoder, h)
        if spec.role is Role.CLASSIFIER_KERNEL:
            whole = affine(decoder["class_layer_predictor"], jax.nn.relu(whole[:1, :1]))
    takes = np.ix_(
        np.arange(height) % size, np.arange(width) % size, np.arange(in_size) % columns, np.arange(out_size) % rows
    )
    fitted = whole[takes]
    is_table = spec.role is Role.POSITION and height >= 11
    if config.normalization != "none" and not is_table:
        beta = 1 if spec.rank > 2 and (in_size == 1 or height < width) else 2
        fan = in_size if config.normalization == "fan_in" else out_size
        fitted = fitted * math.sqrt(beta / (fan * height * width))
    if spec.axes == "OHWI":
        return fitted.transpose(3, 0, 1, 2)
    return fitted.reshape(spec.shape)


def predict(config: GHNConfig, variables: Weights, graph: ArchGraph) -> dict[tuple[str, ...], jax.Array]:
    hidden = states(config, variables["params"], graph)
    return {spec.path: tensor(config, variables["params"], hidden[spec.node], spec) for spec in graph.params}
