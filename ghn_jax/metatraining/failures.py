"""Updates whose loss or gradient was not finite: written down with everything needed to repeat them."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from ghn_jax.deepnets import MetaBatch
from ghn_jax.files import atomic_file
from ghn_jax.metatraining.ahead import TrainBatch
from ghn_jax.metatraining.optimisation import TrainState
from ghn_jax.metatraining.step import StepReport
from ghn_jax.runs import devices
from ghn_jax.runs.callbacks import Callback, Decision, Log, Update

MOST_WRITTEN = 20
"""Failures of one process that are written down; later ones are only counted."""

FIRST_CHECKED = 20
"""Updates before the share of skipped ones is checked."""


class TooManySkippedError(RuntimeError):
    """A run in which too many updates were not finite."""


def record_failure(
    folder: pathlib.Path, step: int, params: Any, batch: MetaBatch, report: StepReport, *, seed: int
) -> pathlib.Path:
    """Writes ``failures/step-N.json`` (architectures, their losses, keys) and the GHN's weights beside it.

    After `MOST_WRITTEN` of them it returns the last one's path: each holds the weights, and a disk is not endless.

    To repeat the step: build `deepnets.NetworkArgs.from_json` of every architecture, predict with the weights of
    the ``.npz``, and run them on training batch `step` of `seed` with the key
    ``fold_in(named_key(seed, DROPOUT), step)``.
    """
    folder = folder / "failures"
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.glob(f"step-*-process-{jax.process_index()}.json"), key=lambda path: path.stat().st_mtime)
    if len(there) >= MOST_WRITTEN:
        return there[-1]
    path = folder / f"step-{step}-process-{jax.process_index()}.json"
    weights: dict[str, Any] = {
        "/".join(names): np.asarray(leaf) for names, leaf in traverse_util.flatten_dict(params).items()
    }
    with atomic_file(path.with_suffix(".npz")) as new:
        np.savez(new, **weights)
    nets = [
        {
            "name": batch.graphs[place].name,
            "loss": repr(loss),
            "args": batch.args[place].to_json(),
            "num_classes": batch.args[place].num_classes,
            "image_size": batch.args[place].image_size,
        }
        for place, loss in report.local_losses.items()
    ]
    data = {
        "step": step,
        "seed": seed,
        "architecture_position": batch.start,
        "loss": repr(report.loss),
        "gradient_norm": repr(report.gradient_norm),
        "networks": nets,
        "weights": path.with_suffix(".npz").name,
    }
    with atomic_file(path) as new:
        new.write_text(json.dumps(data, indent=1) + "\n")
    return path


def check_skipped(skipped: int, steps: int, largest_share: float, path: pathlib.Path) -> None:
    """Raises TooManySkippedError, naming the last failure's file, once more than the allowed share was skipped."""
    if steps >= FIRST_CHECKED and skipped > largest_share * steps:
        raise TooManySkippedError(
            f"{skipped} of {steps} updates had a loss or gradient that is not finite, more than the allowed share of "
            f"{largest_share:.1%}; the last one can be repeated from {path}"
        )


class RecordFailures(Callback[TrainState, TrainBatch]):
    """Writes down every update that was skipped, and ends the run once they are too many.

    Args:
      folder: of the run.
      seed: of the run.
      largest_share: of updates that may be skipped.
    """

    def __init__(self, folder: pathlib.Path, seed: int, largest_share: float) -> None:
        self._folder, self._seed, self._largest_share = folder, seed, largest_share

    def after_step(self, update: Update[TrainState, TrainBatch], decision: Decision, log: Log) -> None:
        """Records update's failure, if it is one.

        Raises:
          TooManySkippedError: if more updates were skipped than allowed.
        """
        report: StepReport = update.details
        if report.finite:
            return
        device = jax.local_devices()[0]
        params, batch = devices.copy_on(update.state.params, device), update.batch.architectures
        path = record_failure(self._folder, update.number, params, batch, report, seed=self._seed)
        log.say(f"update {update.number} skipped, loss {report.loss}: {path}")
        skipped = int(devices.copy_on(update.state.skipped, device))
        check_skipped(skipped, update.done, self._largest_share, path)
