"""GHN-2, GHN-1 and the MLP baseline in NumPy, float64 and the release's layout (OIHW), one node and one tensor a time.

An executable form of docs/method.md, sections 4 to 8. It shares no code with the library: not the look-up tables, not
the distances, not the layout of weights. It is slow and says what is computed; the library says it fast.
"""

import collections
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ghn_jax.graphs import ArchGraph, ParamSpec, Role

S_MAX = 50


def channel_sizes(num_classes: int) -> list[int]:
    """Numbers of channels that have an embedding."""
    return sorted({1, 3, num_classes, *range(8, 57, 8), *range(64, 4081, 16), *range(4096, 8193, 32)})


def spatial_sizes(size: int) -> list[int]:
    """Kernel sizes that have an embedding."""
    return sorted({*range(1, max(12, size), 2), 14, 16})


def nearest(listed: list[int], value: int) -> int:
    """Row of the listed value that is nearest, the lower one on a tie; the extra last row for 0, "no shape"."""
    if value == 0:
        return len(listed)
    return min(range(len(listed)), key=lambda row: (abs(listed[row] - value), row))


def channel_row(num_classes: int, channels: int) -> int:
    """Row of a number of channels; 4 to 7 count as 8 unless listed."""
    listed = channel_sizes(num_classes)
    return nearest(listed, 8 if 4 <= channels <= 7 and channels not in listed else channels)


def spatial_row(size: int, kernel: int) -> int:
    """Row of a kernel size; 2 counts as 3."""
    return nearest(spatial_sizes(size), 3 if kernel == 2 else kernel)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def distances(graph: ArchGraph) -> np.ndarray:
    """Directed shortest-path lengths (N, N) by breadth-first search, 0 where there is no path."""
    successors = collections.defaultdict(list)
    for source, target in graph.edges.tolist():
        successors[source].append(target)
    found = np.zeros((graph.num_nodes, graph.num_nodes), int)
    for start in range(graph.num_nodes):
        waiting, seen = collections.deque([(start, 0)]), {start}
        while waiting:
            node, length = waiting.popleft()
            found[start, node] = length
            fresh = [successor for successor in successors[node] if successor not in seen]
            seen.update(fresh)
            waiting.extend((successor, length + 1) for successor in fresh)
    return found


class LiteralGHN:
    """A hypernetwork from the release's `config` and `state_dict`."""

    def __init__(self, config: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.state = {name: np.asarray(value, np.float64) for name, value in state.items()}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """A linear layer or pointwise convolution along the first axis of x."""
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        weight = weight.reshape(weight.shape[0], weight.shape[1])
        return np.tensordot(weight, x, axes=([1], [0])) + bias.reshape(-1, *[1] * (x.ndim - 1))

    def features(self, graph: ArchGraph) -> list[np.ndarray]:
        """Initial states: the primitive's embedding plus those of the four sizes of its tensor."""
        channel, spatial = (self.state[f"shape_enc.embed_{which}.weight"] for which in ("channel", "spatial"))
        classes, size = self.config["num_classes"], self.config["max_shape"][3]
        states = []
        for primitive, (out, into, height, width) in zip(
            graph.node_types.tolist(), graph.node_shapes.tolist(), strict=True
        ):
            rows = [channel[channel_row(classes, n)] for n in (out, into)]
            rows += [spatial[spatial_row(size, n)] for n in (height, width)]
            states.append(self.state["embed.weight"][primitive] + np.concatenate(rows))
        return states

    def message(self, name: str, h: np.ndarray) -> np.ndarray:
        return relu(self.linear(f"{name}.2", relu(self.linear(f"{name}.0", h))))

    def gru(self, m: np.ndarray, h: np.ndarray) -> np.ndarray:
        s = self.state
        i_r, i_z, i_n = np.split(s["gnn.gru.weight_ih"] @ m + s["gnn.gru.bias_ih"], 3)
        h_r, h_z, h_n = np.split(s["gnn.gru.weight_hh"] @ h + s["gnn.gru.bias_hh"], 3)
        r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
        return (1 - z) * np.tanh(i_n + r * h_n) + z * h

    def sweep(self, length: np.ndarray, states: list[np.ndarray]) -> None:
        """Updates every state in order; length[j, i] leads from a node j, updated already, to node i."""
        for i in range(len(states)):
            m = np.zeros(self.config["hid"])
            for j in np.flatnonzero(length[:, i]):
                if length[j, i] == 1:
                    m += self.message("gnn.mlp.fc", states[j])
                if self.config["ve"] and length[j, i] <= S_MAX:
                    m += self.message("gnn.mlp_ve.fc", states[j]) / length[j, i]
            states[i] = self.gru(m, states[i])

    def states(self, graph: ArchGraph) -> np.ndarray:
        """(N, hid): what is decoded."""
        states = self.features(graph)
        if self.config["hypernet"] == "mlp":
            states = [self.message("gnn.fc", h) for h in states]
        else:
            length = distances(graph)
            self.sweep(length, states)
            states.reverse()
            self.sweep(length.T[::-1, ::-1], states)
            states.reverse()
        if self.config["layernorm"]:
            s = self.state
            states = [(h - h.mean()) / np.sqrt(h.var() + 1e-5) * s["ln.weight"] + s["ln.bias"] for h in states]
        return np.stack(states)

    def key(self, sizes: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the slab that a tensor of `sizes` (out, in) is cut from."""
        key = []
        for size, largest in zip(sizes, self.config["max_shape"], strict=False):
            n = min(size, largest)
            n = 4 * n // 3 if n % 3 == 0 else n
            key.append(largest if n >= largest / 2 else n)
        return key[0], key[1]

    def slab(self, h: np.ndarray, height: int, width: int) -> np.ndarray:
        """(O, I, height, width)."""
        rows, columns, size, _ = self.config["max_shape"]
        if self.config["decoder"] == "mlp":
            whole = self.linear("decoder.mlp.fc.2", relu(self.linear("decoder.mlp.fc.0", h)))
            slab = whole.reshape(rows, columns, size, size)[:, :, :height, :width]
        else:
            x = relu(self.linear("decoder.fc.0", h)).reshape(-1, size, size)[:, :height, :width]
            x = self.linear("decoder.conv.2", relu(self.linear("decoder.conv.0", x)))
            slab = x.reshape(rows, columns, *x.shape[1:])
        if height > size and width > size:
            slab = np.tile(slab, (1, 1, 2, 2))[:, :, :height, :width]
        return slab

    def kernel(self, h: np.ndarray, spec: ParamSpec) -> np.ndarray:
        out, into, height, width = spec.canonical_shape
        key_out, key_in = self.key((out, into))
        if spec.role is not Role.CLASSIFIER_KERNEL:
            slab = self.slab(h, height, width)[:key_out, :key_in]
        elif self.config["decoder"] == "mlp":
            hidden = relu(self.linear("decoder.mlp.fc.0", h))
            flat = self.linear("decoder.class_layer_predictor.1", hidden)
            slab = flat.reshape(self.config["num_classes"], -1, 1, 1)
        else:
            slab = self.linear("decoder.class_layer_predictor.1", relu(self.slab(h, 1, 1)[:, :key_in]))
        slab = slab[:out, :into]
        repeats = (math.ceil(out / slab.shape[0]), math.ceil(into / slab.shape[1]), 1, 1)
        tensor = np.tile(slab, repeats)[:out, :into]
        if not self.config["weight_norm"] or (spec.role is Role.POSITION and height >= 11):
            return tensor
        beta = 1 if spec.rank > 2 and (into == 1 or height < width) else 2
        return tensor * math.sqrt(beta / (into * height * width))

    def vector(self, h: np.ndarray, spec: ParamSpec) -> np.ndarray:
        both = self.linear("decoder_1d.fc.2", relu(self.linear("decoder_1d.fc.0", h))).reshape(2, -1)
        row = both[0 if spec.role is Role.SCALE else 1]
        if spec.role is Role.CLASSIFIER_BIAS:
            row = self.linear("bias_class.1", relu(row))
        vector = np.tile(row, math.ceil(spec.size / len(row)))[: spec.size]
        if not self.config["weight_norm"]:
            return vector
        return 2 * sigmoid(vector / 2) if spec.role is Role.SCALE else np.tanh(vector / 5)

    def predict(self, graph: ArchGraph) -> dict[tuple[str, ...], np.ndarray]:
        """Every tensor of the graph by path, (out, in, height, width) or (size,)."""
        states = self.states(graph)
        return {
            spec.path: self.vector(states[spec.node], spec) if spec.rank == 1 else self.kernel(states[spec.node], spec)
            for spec in graph.params
        }


def canonical(array: Any, spec: ParamSpec) -> np.ndarray:
    """A tensor of the library as (out, in, height, width) or (size,), float64."""
    letters = sorted(spec.axes, key="OIHW".index)
    ordered = np.asarray(array, np.float64).transpose([spec.axes.index(letter) for letter in letters])
    return ordered.reshape(spec.canonical_shape) if spec.rank > 1 else ordered
