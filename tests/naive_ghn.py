"""The hypernetwork written down literally from the equations, one node and one tensor at a time, to compare with.

In NumPy and float64 (`xp = numpy`) or in jax.numpy, to be differentiated.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from ghn_jax.graphs import ArchGraph, ParamSpec, Role
from ghn_jax.hypernet import GHNConfig
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.hypernet.encoders.node_features import channel_table, spatial_table

Array = Any
Layer = dict[str, Any]


@dataclasses.dataclass
class NaiveGHN:
    config: GHNConfig
    params: Layer
    xp: Any = np

    @property
    def encoder(self) -> GatedGNNConfig | MLPEncoderConfig:
        encoder = self.config.encoder
        if not isinstance(encoder, GatedGNNConfig | MLPEncoderConfig):
            raise ValueError(f"no literal form of the encoder {encoder.kind!r}")
        return encoder

    def affine(self, layer: Layer, x: Array) -> Array:
        output = self.xp.tensordot(x, layer["kernel"], 1)
        return output + self.xp.broadcast_to(layer["bias"], output.shape)

    def relu(self, x: Array) -> Array:
        return self.xp.where(x > 0, x, 0.0)

    def sigmoid(self, x: Array) -> Array:
        return 1 / (1 + self.xp.exp(-x))

    def two_layers(self, mlp: Layer, x: Array) -> Array:
        return self.affine(mlp["fc_2"], self.relu(self.affine(mlp["fc_0"], x)))

    def gru(self, weights: Layer, m: Array, h: Array) -> Array:
        d = len(h)
        i = m @ weights["input_kernel"] + weights["input_bias"]
        j = h @ weights["hidden_kernel"] + weights["hidden_bias"]
        r, z = self.sigmoid(i[:d] + j[:d]), self.sigmoid(i[d : 2 * d] + j[d : 2 * d])
        n = self.xp.tanh(i[2 * d :] + r * j[2 * d :])
        return (1 - z) * n + z * h

    def encode(self, graph: ArchGraph) -> list[Array]:
        channels, spatial = channel_table(self.config.num_classes), spatial_table(self.config.max_shape[3])
        encoder = self.params["encoder"]
        hidden = []
        for kind, shape in zip(graph.node_types, graph.node_shapes, strict=True):
            h = encoder["embed"][int(kind)]
            if self.encoder.shape_encoding:
                shapes = encoder["shape_enc"]
                rows = [shapes["embed_channel"][channels[min(s, len(channels) - 1)]] for s in shape[:2]]
                rows += [shapes["embed_spatial"][spatial[min(s, len(spatial) - 1)]] for s in shape[2:]]
                h = h + self.xp.concatenate(rows)
            hidden.append(h)
        return hidden

    def pass_messages(self, config: GatedGNNConfig, distances: np.ndarray, hidden: list[Array]) -> None:
        weights = self.params["gnn"]
        names = ("mlp", "mlp_ve") if config.virtual_edges else ("mlp",)
        for _ in range(config.rounds):
            for reverse in (False, True)[: 2 if config.backward_sweep else 1]:
                messages: dict[int, Layer] = {}
                for i in range(len(hidden))[:: -1 if reverse else 1]:
                    heard = self.xp.zeros(self.config.hid)
                    for j, message in messages.items():
                        s = float(distances[i, j] if reverse else distances[j, i])
                        if s == 1:
                            heard = heard + message["mlp"]
                        if s and config.virtual_edges:
                            heard = heard + message["mlp_ve"] / s
                    hidden[i] = self.gru(weights["gru"], heard, hidden[i])
                    messages[i] = {name: self.relu(self.two_layers(weights[name], hidden[i])) for name in names}

    def states(self, graph: ArchGraph) -> list[Array]:
        hidden, encoder = self.encode(graph), self.encoder
        if isinstance(encoder, MLPEncoderConfig):
            hidden = [self.relu(self.two_layers(self.params["gnn"]["fc"], h)) for h in hidden]
        else:
            self.pass_messages(encoder, graph.distances(encoder.cutoff), hidden)
        if encoder.layernorm:
            scale, bias = self.params["ln"]["scale"], self.params["ln"]["bias"]
            hidden = [(h - h.mean()) / self.xp.sqrt(h.var() + 1e-5) * scale + bias for h in hidden]
        return hidden

    def slab(self, h: Array) -> Array:
        """Whole slab (S, S, I, O)."""
        decoder = self.params["decoder"]
        if self.config.decoder.kind == "mlp":
            return self.two_layers(decoder["mlp"], h)
        hidden = self.relu(self.affine(decoder["conv_0"], self.relu(self.affine(decoder["fc"], h))))
        return self.affine(decoder["conv_2"], hidden)

    def classifier(self, h: Array) -> Array:
        """(1, 1, I or 1, K)."""
        decoder = self.params["decoder"]
        if self.config.decoder.kind == "mlp":
            hidden = self.relu(self.affine(decoder["mlp"]["fc_0"], h))
            return self.affine(decoder["class_layer_predictor"], hidden)[None, None]
        return self.affine(decoder["class_layer_predictor"], self.relu(self.slab(h)[:1, :1]))

    def vector(self, h: Array, spec: ParamSpec) -> Array:
        both = self.two_layers(self.params["decoder_1d"]["mlp"], h)
        if spec.role is Role.CLASSIFIER_BIAS:
            both = self.affine(self.params["decoder_1d"]["bias_class"], self.relu(both))
        row = both[0 if spec.role is Role.SCALE else 1]
        vector = row[np.arange(spec.size) % len(row)]
        if self.config.normalization == "none":
            return vector
        return 2 * self.sigmoid(vector / 2) if spec.role is Role.SCALE else self.xp.tanh(vector / 5)

    def tensor(self, h: Array, spec: ParamSpec) -> Array:
        if spec.rank == 1:
            return self.vector(h, spec)
        out_size, in_size, height, width = spec.canonical_shape
        rows, columns, size, _ = self.config.max_shape
        whole = self.classifier(h) if spec.role is Role.CLASSIFIER_KERNEL else self.slab(h)
        rows = out_size if spec.role is Role.CLASSIFIER_KERNEL else rows
        lengths, periods = (height, width, in_size, out_size), (size, size, columns, rows)
        fitted = whole[np.ix_(*[np.arange(n) % period for n, period in zip(lengths, periods, strict=True)])]
        if self.config.normalization != "none" and not (spec.role is Role.POSITION and height >= 11):
            beta = 1 if spec.rank > 2 and (in_size == 1 or height < width) else 2
            fan = in_size if self.config.normalization == "fan_in" else out_size
            fitted = fitted * math.sqrt(beta / (fan * height * width))
        return fitted.transpose(3, 0, 1, 2) if spec.axes == "OHWI" else fitted.reshape(spec.shape)

    def predict(self, graph: ArchGraph) -> dict[tuple[str, ...], Array]:
        hidden = self.states(graph)
        return {spec.path: self.tensor(hidden[spec.node], spec) for spec in graph.params}
