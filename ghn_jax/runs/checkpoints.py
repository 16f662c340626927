"""Checkpoints of a run, by orbax: written aside and renamed, so that a kill at any moment leaves whole ones only."""

import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

Tree = TypeVar("Tree")

FOLDER = "checkpoints"
"""Of a run's folder."""

UNMEASURED = -1.0
"""Metric of a checkpoint between two validations: below every accuracy."""


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Updates after which the run in a folder has whole checkpoints, in order; [] if it has none."""
    place = folder / FOLDER
    return sorted(int(path.name) for path in place.iterdir() if path.name.isdigit()) if place.is_dir() else []


class Checkpoints:
    """The last `keep_last` checkpoints of a run and the one with the highest metric.

    Each holds the arrays of the training state and a JSON object with the rest, such as the architectures' position.
    """

    def __init__(self, folder: pathlib.Path, keep_last: int = 2) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}")
        best = policies.BestN(get_metric_fn=_metric, n=1)
        keep = policies.AnyPreservationPolicy([policies.LatestN(keep_last), best])
        self._manager = ocp.CheckpointManager(
            folder.resolve() / FOLDER,
            # Metrics are stored only where best_fn is set, though it is the policy that decides what is kept.
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep, best_fn=_metric, enable_async_checkpointing=True
            ),
        )

    def save(self, step: int, state: Any, rest: Mapping[str, Any], metric: float | None = None) -> None:
        """Starts to save the state after `step` updates; one that is there already is left alone."""
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), rest=ocp.args.JsonSave(dict(rest)))
        metrics = {"metric": UNMEASURED if metric is None else float(metric)}
        self._manager.save(step, args=args, metrics=metrics, force=True)

    def latest(self) -> int | None:
        """Updates that the newest checkpoint holds; None without one."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The checkpoint with the highest metric, the newest of equal ones; None without any."""
        scores = {step: _metric(self._manager.metrics(step)) for step in self._manager.all_steps()}
        return max(scores, key=lambda step: (scores[step], step), default=None)

    def restore(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
        """State with the structure, dtypes and placement of `like`, and the rest.

        Raises:
          ValueError: without such a checkpoint, or if it has other parameters than `like`.
        """
        if step not in self._manager.all_steps():
            there = sorted(self._manager.all_steps())
            raise ValueError(f"{self._manager.directory} holds no checkpoint of step {step}, only of {there}")
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), rest=ocp.args.JsonRestore())
        restored: Any = self._manager.restore(step, args=args)
        return restored.state, restored.rest

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _metric(metrics: Any) -> float:
    return metrics["metric"]
