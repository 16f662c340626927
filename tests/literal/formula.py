"""Weights of a hypernetwork given by a formula, so that anyone can make them and no file is needed.

Tensors have the public release's names and shapes (docs/method.md, section 11). Entry i of a tensor is a hash of its
name and i, spread evenly over an interval whose width keeps states and predicted tensors of ordinary size.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from literal.ghn import channel_sizes, spatial_sizes

GHN2: Mapping[str, Any] = {
    "max_shape": (16, 16, 11, 11), "num_classes": 10, "hypernet": "gatedgnn", "decoder": "conv", "weight_norm": True,
    "ve": True, "layernorm": True, "hid": 8,
}  # fmt: skip
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "ghn2": GHN2,
    "ghn1": {**GHN2, "weight_norm": False, "ve": False, "layernorm": False},
    "mlp": {**GHN2, "hypernet": "mlp"},
    "mlp decoder": {**GHN2, "decoder": "mlp"},
    "other shape": {**GHN2, "max_shape": (12, 20, 16, 16), "num_classes": 17},
}
"""Small hypernetworks of each kind, in the release's words."""


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a hypernetwork."""
    hid, classes, (rows, columns, size, _) = config["hid"], config["num_classes"], config["max_shape"]
    vector = max(rows, columns)
    layers: dict[str, tuple[int, ...]] = {}
    if config["hypernet"] == "mlp":
        layers.update({"gnn.fc.0": (hid, hid), "gnn.fc.2": (hid, hid)})
    else:
        inner = hid // 2 if config["ve"] else hid
        layers.update({"gnn.mlp.fc.0": (inner, hid), "gnn.mlp.fc.2": (hid, inner)})
        if config["ve"]:
            layers.update({"gnn.mlp_ve.fc.0": (hid // 2, hid), "gnn.mlp_ve.fc.2": (hid, hid // 2)})
    if config["decoder"] == "mlp":
        layers.update({
            "decoder.mlp.fc.0": (2 * hid, hid),
            "decoder.mlp.fc.2": (rows * columns * size**2, 2 * hid),
            "decoder.class_layer_predictor.1": (classes * rows, 2 * hid),
        })  # fmt: skip
    else:
        layers.update({
            "decoder.fc.0": (4 * hid * size**2, hid),
            "decoder.conv.0": (8 * hid, 4 * hid, 1, 1),
            "decoder.conv.2": (rows * columns, 8 * hid, 1, 1),
            "decoder.class_layer_predictor.1": (classes, rows, 1, 1),
        })  # fmt: skip
    layers.update({"decoder_1d.fc.0": (2 * hid, hid), "decoder_1d.fc.2": (2 * vector, 2 * hid)})
    layers["bias_class.1"] = (classes, vector)
    found: dict[str, tuple[int, ...]] = {
        "embed.weight": (15, hid),
        "shape_enc.embed_channel.weight": (len(channel_sizes(classes)) + 1, hid // 4),
        "shape_enc.embed_spatial.weight": (len(spatial_sizes(size)) + 1, hid // 4),
    }
    for name, shape in layers.items():
        found.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})
    if config["hypernet"] != "mlp":
        for which in ("ih", "hh"):
            found.update({f"gnn.gru.weight_{which}": (3 * hid, hid), f"gnn.gru.bias_{which}": (3 * hid,)})
    if config["layernorm"]:
        found.update({"ln.weight": (hid,), "ln.bias": (hid,)})
    return found


def weights(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """float32 tensors by name."""
    return {name: _tensor(name, shape) for name, shape in shapes(config).items()}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """SplitMix64 of (name, index), from -1 to 1, scaled by what the tensor is."""
    z = (np.uint64(zlib.crc32(name.encode())) << np.uint64(32)) + np.arange(np.prod(shape), dtype=np.uint64)
    z = z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z = z ^ z >> np.uint64(31)
    u = (z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1
    if name == "ln.weight":
        u = 1 + 0.2 * u
    elif len(shape) == 1:
        u = 0.1 * u
    elif "embed" in name:
        u = 0.5 * u
    else:
        u = u * np.sqrt(3 / shape[1])
    return u.reshape(shape).astype(np.float32)
