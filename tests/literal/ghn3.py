"""GHN-3 and LoGAH in the release's layout (OIHW) and names, one query and one tensor at a time.

An executable form of docs/method.md, sections 14 to 16, in NumPy and float64, or in jax.numpy to be differentiated. It
shares no code with the library.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from literal.ghn import channel_row, distances, spatial_row

from ghn_jax.graphs import ArchGraph, ParamSpec, Role

Array = Any


class LiteralGHN3:
    """A hypernetwork from the release's `config` and `state_dict`."""

    def __init__(self, config: Mapping[str, Any], state: Mapping[str, Array], xp: Any = np) -> None:
        self.config, self.state, self.xp = config, state, xp

    def linear(self, name: str, x: Array) -> Array:
        """(.., in) -> (.., out)."""
        output = x @ self.state[f"{name}.weight"].T
        return output + self.xp.broadcast_to(self.state[f"{name}.bias"], output.shape)

    def relu(self, x: Array) -> Array:
        return self.xp.where(x > 0, x, 0.0)

    def gelu(self, x: Array) -> Array:
        if self.xp is np:
            return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
        from jax.scipy.special import erf

        return x * (1 + erf(x / math.sqrt(2))) / 2

    def norm(self, name: str, x: Array) -> Array:
        scaled = (x - x.mean()) / self.xp.sqrt(x.var() + 1e-5)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def features(self, graph: ArchGraph, length: np.ndarray) -> list[Array]:
        """Initial states and the three tables of a node's place."""
        channel, spatial = (self.state[f"shape_enc.embed_{which}.weight"] for which in ("channel", "spatial"))
        classes, size = self.config["num_classes"], self.config["max_shape"][3]
        edges, states = length == 1, []
        for i, (primitive, shape) in enumerate(zip(graph.node_types.tolist(), graph.node_shapes.tolist(), strict=True)):
            rows = [channel[channel_row(classes, n)] for n in shape[:2]]
            rows += [spatial[spatial_row(size, n)] for n in shape[2:]]
            x = self.state["embed.weight"][primitive] + self.xp.concatenate(rows)
            x = x + self.state["gnn.0.centrality_embed_in.weight"][min(int(edges[:, i].sum()), 100)]
            x = x + self.state["gnn.0.centrality_embed_out.weight"][min(int(edges[i].sum()), 100)]
            states.append(x + self.state["gnn.0.input_dist_embed.weight"][min(int(length[0, i]), 1000)])
        return states

    def edge_bias(self, length: np.ndarray, i: int) -> Array:
        """(N, heads): of query i and every key."""
        table = self.state["gnn.0.attn.edge_embed.embed.weight"]
        pairs = [
            self.xp.concatenate([table[2 + forward], table[2 + back]])
            for forward, back in zip(length[i].tolist(), length[:, i].tolist(), strict=True)
        ]
        hidden = self.relu(self.linear("gnn.0.attn.proj_e.0", self.xp.stack(pairs)))
        return self.linear("gnn.0.attn.proj_e.2", hidden)

    def attention(self, layer: int, states: list[Array], bias: list[Array]) -> list[Array]:
        """What every node gets, of one layer."""
        heads, hid = self.config["heads"], self.config["hid"]
        normed = [self.norm(f"gnn.{layer}.ln1", x) for x in states]
        qkv = self.xp.stack(normed) @ self.state[f"gnn.{layer}.attn.to_qkv.weight"].T
        query, key, value = (qkv[:, part * hid : (part + 1) * hid] for part in range(3))
        found = []
        for i in range(len(states)):
            parts = []
            for head in range(heads):
                own = slice(head * hid // heads, (head + 1) * hid // heads)
                scores = key[:, own] @ query[i, own] / math.sqrt(hid // heads) + bias[i][:, head]
                weights = self.xp.exp(scores - scores.max())
                parts.append(weights / weights.sum() @ value[:, own])
            found.append(self.linear(f"gnn.{layer}.attn.to_out.0", self.xp.concatenate(parts)))
        return found

    def states(self, graph: ArchGraph) -> list[Array]:
        """(hid,) of every node: what is decoded."""
        length = distances(graph)
        length[length > (50 if self.config["ve"] else 1)] = 0
        states = self.features(graph, length)
        bias = [self.edge_bias(length, i) for i in range(len(states))]
        for layer in range(self.config["layers"]):
            states = [x + more for x, more in zip(states, self.attention(layer, states, bias), strict=True)]
            for i, x in enumerate(states):
                hidden = self.gelu(self.linear(f"gnn.{layer}.ff.net.0", self.norm(f"gnn.{layer}.ln2", x)))
                states[i] = x + self.linear(f"gnn.{layer}.ff.net.3", hidden)
        return [self.norm("ln", x) for x in states] if self.config["layernorm"] else states

    def key(self, size: int, largest: int) -> int:
        n = min(size, largest)
        n = 4 * n // 3 if n % 3 == 0 else n
        return largest if n >= largest / 2 else n

    def slab(self, h: Array, spec: ParamSpec) -> Array:
        """(out, in, height, width) of what a kernel is tiled from, at least as large as the target where that is so."""
        out, into, height, width = spec.canonical_shape
        largest_out, largest_in, size, _ = self.config["max_shape"]
        if self.config.get("lora"):
            left, right = self.factors(h)
            rows = self.key(out, largest_out)
            columns = self.key(into, largest_in)
            product = left[: rows * height] @ right[: columns * width].T
            slab = product.reshape(rows, height, columns, width).transpose(0, 2, 1, 3)
            return slab[:largest_out, :largest_in]
        x = self.relu(self.linear("decoder.fc.0", h)).reshape(-1, size, size)
        middle = size // 2
        ends = [(max(0, middle - k // 2), middle + math.ceil(k / 2)) for k in (height, width)]
        (top, bottom), (left, right) = ends
        x = self.xp.moveaxis(x[:, top:bottom, left:right], 0, 2)
        x = self.linear("decoder.conv.2", self.relu(self.linear("decoder.conv.0", x)))
        slab = x.reshape(*x.shape[:2], largest_out, largest_in).transpose(2, 3, 0, 1)
        for axis, length in ((2, height), (3, width)):
            slab = self.resized(slab, axis, length)
        if spec.role is Role.CLASSIFIER_KERNEL:
            hidden = self.xp.moveaxis(self.relu(slab), 0, 3)
            slab = self.xp.moveaxis(self.linear("decoder.class_layer_predictor.1", hidden), 3, 0)
        return slab

    def resized(self, slab: Array, axis: int, length: int) -> Array:
        """An axis that is too short, interpolated between the centres of its pixels."""
        short = slab.shape[axis]
        if short >= length:
            return slab
        places = np.clip((np.arange(length) + 0.5) * short / length - 0.5, 0, short - 1)
        below = np.minimum(places.astype(int), short - 2)
        weight = np.zeros((length, short))
        weight[np.arange(length), below] = 1 - (places - below)
        weight[np.arange(length), below + 1] = places - below
        return self.xp.moveaxis(self.xp.tensordot(slab, weight, axes=([axis], [1])), -1, axis)

    def factors(self, h: Array) -> tuple[Array, Array]:
        """A (W, r) and the transpose of B, (W, r)."""
        rank, width = self.config["lora_r"], self.config["max_ck_lora"]
        x = self.relu(self.linear("decoder.mlp.fc.2", self.relu(self.linear("decoder.mlp.fc.0", h))))
        x = self.relu(self.linear("decoder.mlp.fc.4", x).reshape(2 * rank, rank))
        both = self.linear("decoder.l2", x).reshape(2 * width, rank)
        return both[:width], both[width:]

    def kernel(self, h: Array, spec: ParamSpec) -> Array:
        out, into, height, width = spec.canonical_shape
        slab = self.slab(h, spec)
        repeats = (math.ceil(out / slab.shape[0]), math.ceil(into / slab.shape[1]), 1, 1)
        tensor = self.xp.tile(slab[:out, :into], repeats)[:out, :into]
        if not self.config["weight_norm"] or (spec.role is Role.POSITION and height >= 11):
            return tensor
        beta = 1 if spec.rank > 2 and (into == 1 or height < width) else 2
        return tensor * math.sqrt(beta / (into * height * width))

    def vector(self, h: Array, spec: ParamSpec) -> Array:
        if self.config.get("lora"):
            left, right = self.factors(h)
            n = self.key(spec.size, self.config["max_shape"][0])
            both = (left[: 2 * n] @ right[:1].T).reshape(2, n)
        else:
            hidden = self.relu(self.linear("decoder_1d.fc.0", h))
            both = self.linear("decoder_1d.fc.2", hidden).reshape(2, -1)
        row = both[0 if spec.role is Role.SCALE else 1]
        if spec.role is Role.CLASSIFIER_BIAS and not self.config.get("lora"):
            row = self.linear("bias_class.1", self.relu(row))
        vector = self.xp.tile(row, math.ceil(spec.size / len(row)))[: spec.size]
        if not self.config["weight_norm"]:
            return vector
        return 2 / (1 + self.xp.exp(-vector / 2)) if spec.role is Role.SCALE else self.xp.tanh(vector / 5)

    def predict(self, graph: ArchGraph) -> dict[tuple[str, ...], Array]:
        """Every tensor of the graph by path, (out, in, height, width) or (size,)."""
        states = self.states(graph)
        return {
            spec.path: self.vector(states[spec.node], spec) if spec.rank == 1 else self.kernel(states[spec.node], spec)
            for spec in graph.params
        }
