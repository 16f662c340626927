"""The forms in which the releases keep a hypernetwork, made into one: a configuration and tensors by name.

Files of GHN-3's training hold the tables of a node's place under the first layer, its published files at the top and
without a configuration, which is then told from names and shapes (docs/method.md, section 11).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.hypernet.encoders.graphormer import LANGUAGE_PRIMITIVES, PLACE_TABLES
from ghn_jax.hypernet.encoders.node_features import spatial_sizes

_CLASSES, _EMBEDDING, _SLAB = "decoder.class_layer_predictor.1.weight", "embed.weight", "decoder.conv.2.weight"
_SPATIAL = "shape_enc.embed_spatial.weight"
_INFERRED_FROM = (_CLASSES, _EMBEDDING, _SLAB, _SPATIAL)
_LAYER = re.compile(r"gnn\.\d+\.ln1\.weight")
_UNUSED = re.compile(r"decoder\.(l1|seq\.1)\.(weight|bias)")
_PLACEHOLDER = re.compile(r"(decoder_1d\.0|bias_class\.1)\.(weight|bias)")
"""Of the low-rank decoder without an MLP for vectors."""
_SQUEEZED = re.compile(r"decoder\.(conv\.[02]|class_layer_predictor\.1)\.weight")
_WIDE = 64
"""D above which a published GHN-3 has 16 heads instead of 8."""
_KERNELS = (11, 16)
"""S of published hypernetworks."""


def configuration_and_tensors(saved: Any, source: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a checkpoint of a release holds, as `config_from_release` and `params_from_release` take it.

    Args:
      saved: what the file held: {"state_dict": .., "config": ..} or the tensors alone.
      source: name of the file, for errors.

    Raises:
      ValueError: for anything else, or tensors from which no configuration can be told; names what is wrong.
    """
    if isinstance(saved, Mapping) and isinstance(saved.get("state_dict"), Mapping):
        if not isinstance(saved.get("config"), Mapping):
            raise ValueError(f"{source}: no checkpoint of the release: state_dict or config is missing")
        tensors, config = _tensors(saved["state_dict"], source), dict(saved["config"])
    elif isinstance(saved, Mapping) and _EMBEDDING in saved:
        tensors = _tensors(saved, source)
        config = _inferred(tensors, source)
        if config["is_ghn2"]:
            tensors = {
                name: array.reshape(*array.shape, 1, 1) if _SQUEEZED.fullmatch(name) else array
                for name, array in tensors.items()
            }
    else:
        raise ValueError(f"{source}: no checkpoint of the release: state_dict or config is missing")
    tensors = {f"gnn.0.{n}" if n.removesuffix(".weight") in PLACE_TABLES else n: a for n, a in tensors.items()}
    if config.get("lora"):
        config.setdefault("num_classes", 10)
        rows = tensors[_EMBEDDING].shape[0] if _EMBEDDING in tensors else 0
        config["language"] = rows == len(Primitive) + LANGUAGE_PRIMITIVES
        placeholder = None if config.get("use_1d_decoder") else _PLACEHOLDER
        tensors = {
            name: array
            for name, array in tensors.items()
            if not (_UNUSED.fullmatch(name) or (placeholder and placeholder.fullmatch(name)))
        }
    return config, tensors


def _tensors(state: Mapping[Any, Any], source: str) -> dict[str, np.ndarray]:
    for name, array in state.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise ValueError(f"{source}: no checkpoint of the release: {name!r} is no tensor")
    return dict(state)


def _inferred(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Configuration of a published hypernetwork: virtual edges, normalised tensors, and the sizes of its tensors."""
    for name in _INFERRED_FROM:
        if name not in tensors or tensors[name].ndim != 2:
            raise ValueError(f"{source}: no configuration can be told from the tensors: {name} is missing or no matrix")
    largest = math.isqrt(tensors[_SLAB].shape[0])
    if largest**2 != tensors[_SLAB].shape[0]:
        raise ValueError(f"{source}: {_SLAB} has {tensors[_SLAB].shape[0]} rows, which is no square")
    sizes = {len(spatial_sizes(size)) + 1: size for size in _KERNELS}
    if tensors[_SPATIAL].shape[0] not in sizes:
        expected = " or ".join(map(str, sizes))
        raise ValueError(f"{source}: {_SPATIAL} has {tensors[_SPATIAL].shape[0]} rows, expected {expected}")
    size, hid = sizes[tensors[_SPATIAL].shape[0]], tensors[_EMBEDDING].shape[1]
    is_ghn2 = any(name.startswith("gnn.gru.") for name in tensors)
    layers = sum(1 for name in tensors if _LAYER.fullmatch(name))
    if not is_ghn2 and not layers:
        raise ValueError(f"{source}: no configuration can be told from the tensors: neither gnn.gru nor gnn.0.ln1")
    return {
        "max_shape": (largest, largest, size, size),
        "num_classes": tensors[_CLASSES].shape[0],
        "hypernet": "gatedgnn",
        "decoder": "conv",
        "weight_norm": True,
        "ve": True,
        "layernorm": "ln.weight" in tensors,
        "hid": hid,
        "layers": layers,
        "heads": 16 if hid > _WIDE else 8,
        "is_ghn2": is_ghn2,
    }
