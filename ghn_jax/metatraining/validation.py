"""Accuracy during and after a run, on architectures that it does not train on."""

import pathlib
from typing import Any

import jax
import numpy as np

from ghn_jax.deepnets.statistics import standard_error
from ghn_jax.evaluation.accuracy import Evaluator, Score
from ghn_jax.evaluation.architectures import Named, evaluation_architectures
from ghn_jax.evaluation.score_table import RANDOM_INIT_LABELS, score_all, summary_table
from ghn_jax.hypernet import GHN
from ghn_jax.images import ImageSet, ImageStream, eval_batches
from ghn_jax.metatraining.config import TrainConfig
from ghn_jax.networks.runner import Runner
from ghn_jax.runs.lock import folder_lock
from ghn_jax.runs.pictures import curve_picture, histogram_picture


class Validator:
    """Scores a few architectures of the validation split on validation images; programs are kept between calls."""

    def __init__(self, config: TrainConfig, ghn: GHN, images: ImageSet | ImageStream) -> None:
        self._config, self._ghn, self._images = config, ghn, images
        self._runner = Runner()
        self._chosen: list[Named] = []

    def __call__(self, params: Any) -> dict[str, float]:
        """Mean top-1 and top-5 over architectures, and the standard error of top-1."""
        config = self._config
        if not self._chosen:
            self._chosen = _architectures(config, "val", config.run.validation_architectures)
        batches = eval_batches(self._images, "val", config.images.batch_size, config.run.validation_images)
        evaluator = Evaluator(
            self._ghn, {"params": params}, list(batches), self._runner, seed=None, threads=config.run.threads
        )
        scores = list(evaluator.scores(self._chosen))
        top1 = [score.top1 for score in scores]
        error = standard_error(top1)
        return {"top1": float(np.mean(top1)), "top5": float(np.mean([s.top5 for s in scores])), "error": error}


def _architectures(config: TrainConfig, split: str, count: int) -> list[Named]:
    return list(evaluation_architectures(config.architectures, config.task, split, count))


def final_evaluation(
    config: TrainConfig,
    ghn: GHN,
    params: Any,
    images: ImageSet | ImageStream,
    *,
    passed_over: int = 0,
    held_out: int = 0,
) -> tuple[list[Score], str, list[pathlib.Path]]:
    """Scores unseen architectures on test images, predicted against He initialisation.

    Args:
      config: of the run, resolved.
      ghn: the hypernetwork.
      params: its weights.
      images: the image set.
      passed_over: networks that training passed over, for the table; see `summary_table`.
      held_out: draws that training left out, for the table.

    Returns:
      The scores, a table, and the files written: ``test.jsonl``, ``test.png`` and ``curves.png`` in the run's folder.
    """
    folder = config.run_dir
    batches = list(eval_batches(images, "test", config.images.batch_size, config.run.test_images))
    weights = jax.device_put({"params": params}, jax.local_devices()[0])
    evaluator = Evaluator(ghn, weights, batches, Runner(), seed=config.run.seed, threads=config.run.threads)
    chosen = _architectures(config, "test", config.run.test_architectures)
    lines = folder / "test.jsonl"
    with folder_lock(folder):
        lines.unlink(missing_ok=True)
        scores = score_all(evaluator, chosen, lines)
    ways = {"predicted": [s.top1 for s in scores], RANDOM_INIT_LABELS["he"]: [s.random_top1 or 0.0 for s in scores]}
    title = f"{len(scores)} unseen architectures, {config.images.dataset} test images"
    pictures = [histogram_picture(ways, title, folder / "test.png"), curve_picture(folder)]
    table = summary_table(
        scores,
        1 / images.num_classes,
        passed_over=passed_over,
        held_out=held_out,
        held_out_rule=config.architectures.held_out_rule,
        skipped=images.skipped,
    )
    return scores, table, [lines, *pictures]
