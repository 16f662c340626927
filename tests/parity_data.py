"""Outputs of the original release, for the tests that compare with it.

`GHN_JAX_PARITY` names their folder; without it ../shared/parity beside the repository is tried. Tests that need them
are skipped where neither exists.
"""

import collections
import functools
import gzip
import json
import os
import pathlib
from collections.abc import Mapping
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


FOLDERS = (PARITY, PARITY / "ghn3", PARITY / "logah")
"""Of the release of GHN-2 and its baselines, of that of GHN-3, and of that of LoGAH."""


def _read(folder: pathlib.Path, name: str) -> dict[str, Any]:
    with gzip.open(folder / name) as file:
        return json.load(file)


@functools.cache
def fixture_graphs() -> dict[str, dict[str, Any]]:
    """Graphs of graphs.json.gz by architecture; ARCH@K, with another classifier, is not listed."""
    return {name: graph for folder in FOLDERS for name, graph in _read(folder, "graphs.json.gz").items()}


@functools.cache
def fixture_params() -> dict[str, Any]:
    """Predicted tensors of params.json.gz by architecture and GHN."""
    merged: dict[str, Any] = {}
    for folder in FOLDERS:
        for name, by_ghn in _read(folder, "params.json.gz").items():
            merged.setdefault(name, {}).update(by_ghn)
    return merged


@functools.cache
def fixture_outputs() -> Mapping[str, Any]:
    """Embeddings and logits of outputs.npz."""
    return collections.ChainMap(*[np.load(folder / "outputs.npz") for folder in FOLDERS])


def checkpoint(ghn: str) -> pathlib.Path:
    """File of a GHN that has one."""
    return next(path for folder in FOLDERS if (path := folder / "checkpoints" / f"{ghn}.pt").exists())


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
