"""Networks trained from several starts on the same batches, one network after another; every curve is kept at once."""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.evaluation.architectures import Named
from ghn_jax.evaluation.score_table import claim_folder
from ghn_jax.files import atomic_file
from ghn_jax.hypernet.json_fields import append_lines, read_lines
from ghn_jax.images import ImageSet, ImageStream, train_batches
from ghn_jax.keys import RANDOM_INITIALISATION, named_key
from ghn_jax.networks.runner import Runner
from ghn_jax.runs.lock import folder_lock
from ghn_jax.runs.memory import give_back
from ghn_jax.runs.progress import Reporter
from ghn_jax.training.config import NetTrainConfig
from ghn_jax.training.networks import Flat, Regularisation, gradient_on, trainable
from ghn_jax.training.starts import Given, Gradient, start_params
from ghn_jax.training.task import Curve, Net, train_networks

CURVES_FILE = "curves.jsonl"
WEIGHTS = "weights"


def train_from_starts(
    architectures: Iterable[Named],
    starts: Sequence[str],
    images: ImageSet | ImageStream,
    config: NetTrainConfig,
    folder: pathlib.Path,
    *,
    given: Given,
    asked: dict[str, Any],
    keep_weights: bool = True,
    reporter: Reporter | None = None,
) -> dict[str, list[Curve]]:
    """Trains every network from every start; the same call goes on where it stopped.

    Args:
      architectures: number, model and graph of each network.
      starts: names of starts (`STARTS`).
      images: that networks are trained on.
      config: how.
      folder: of results: a line of ``curves.jsonl`` for every network and start, and their weights.
      given: what starts may use.
      asked: what else results depend on, such as the hypernetwork; as JSON.
      keep_weights: whether trained weights are written, as ``weights/NETWORK-START.npz``.
      reporter: where lines go; default: the log.

    Returns:
      Curves by start, in the order of the networks.

    Raises:
      ValueError: for an unknown start, a folder that holds results of something else, or one in use.
    """
    path = folder / CURVES_FILE
    question = {**json.loads(json.dumps(dataclasses.asdict(config))), "starts": list(starts), **asked}
    curves: dict[str, list[Curve]] = {name: [] for name in starts}
    with folder_lock(folder):
        there = {curve.name: curve for curve in read_curves(path)}
        claim_folder(folder, question, answered=bool(there))
        for number, model, graph in architectures:
            names = {start: f"{graph.name}-{start}".replace("/", "_") for start in starts}
            if any(name not in there for name in names.values()):
                own = dataclasses.replace(given, gradient=_gradient(model, images, config))
                key = jax.random.fold_in(named_key(config.seed, RANDOM_INITIALISATION), number)
                nets = [Net(name, model, graph, start_params(start, graph, key, own)) for start, name in names.items()]
                run = folder / "runs" / graph.name.replace("/", "_")
                found, weights = train_networks(nets, images, config, run, reporter)
                if keep_weights:
                    for name, params in weights.items():
                        save_weights(folder / WEIGHTS / f"{name}.npz", params)
                append_lines(path, found)
                shutil.rmtree(run)
                there.update((curve.name, curve) for curve in found)
                give_back()
            for start, name in names.items():
                curves[start].append(there[name])
    return curves


def _gradient(model: NetworkArgs | nn.Module, images: ImageSet | ImageStream, config: NetTrainConfig) -> Gradient:
    """Loss and gradient of a network on the first training batch, which is made when it is first asked for."""

    @functools.cache
    def made() -> Gradient:
        batches = train_batches(images, config.batch_size, config.seed)
        try:
            own = trainable(model, Regularisation(), Runner(), images.image_size)
            return gradient_on(own, batches.batch(0))
        finally:
            batches.close()

    def gradient(params: Flat) -> tuple[jax.Array, Flat]:
        return made()(params)

    return gradient


def save_weights(path: pathlib.Path, params: Flat) -> None:
    """Weights as an npz file, an array for each path, its keys joined by slashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as new, new.open("wb") as file:
        arrays: dict[str, Any] = {"/".join(key): np.asarray(leaf) for key, leaf in params.items()}
        np.savez(file, **arrays)


def read_curves(path: pathlib.Path) -> list[Curve]:
    """Curves of a file; see `read_lines`."""
    return read_lines(Curve, path, "curve")
