"""Outputs of the original release, for the tests that compare with it.

`GHN_JAX_PARITY` names their folder; without it ../shared/parity beside the repository is tried. Tests that need them
are skipped where neither exists.
"""

import functools
import gzip
import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest

PARITY = pathlib.Path(
    os.environ.get("GHN_JAX_PARITY", pathlib.Path(__file__).resolve().parents[2] / "shared" / "parity")
)
HAS_PARITY = PARITY.is_dir()
needs_parity = pytest.mark.skipif(
    not HAS_PARITY, reason="outputs of the original release not found: set GHN_JAX_PARITY to their folder"
)


@functools.cache
def fixture_graphs() -> dict[str, dict[str, Any]]:
    """Graphs of graphs.json.gz by architecture."""
    with gzip.open(PARITY / "graphs.json.gz") as file:
        return json.load(file)


@functools.cache
def fixture_params() -> dict[str, Any]:
    """Predicted tensors of params.json.gz by architecture and GHN."""
    with gzip.open(PARITY / "params.json.gz") as file:
        return json.load(file)


@functools.cache
def fixture_outputs() -> Any:
    """Embeddings and logits of outputs.npz."""
    return np.load(PARITY / "outputs.npz")


@functools.cache
def fixture_images() -> tuple[np.ndarray, np.ndarray]:
    """Normalised float32 images (64, 32, 32, 3) and their labels (64,)."""
    data = np.load(PARITY / "images.npz")
    images = (data["uint8_nhwc"].astype(np.float32) / 255 - data["mean"]) / data["std"]
    return images.astype(np.float32), data["labels"]


@functools.cache
def fixture_args() -> dict[str, dict[str, Any]]:
    """Network arguments (the release's JSON) by ``SPLIT/INDEX``."""
    nets = {}
    for part in ("train", "eval"):
        meta = json.loads((PARITY / "deepnets" / f"deepnets1m_{part}_meta.json").read_text())
        for split, entry in meta.items():
            nets.update({f"{split}/{index}": args for index, args in enumerate(entry["nets"])})
    return nets
