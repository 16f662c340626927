"""Pictures of a run: learning curves, histograms of accuracies. matplotlib is imported only here, when asked for."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ghn_jax.files import atomic_file
from ghn_jax.runs.metrics import read_metrics

WINDOW = 50
"""Training points averaged into one of the smooth line, at most."""


def curve_picture(folder: pathlib.Path) -> pathlib.Path:
    """Draws loss and accuracy of a run's ``metrics.jsonl`` over its updates; returns ``curves.png`` in its folder."""
    rows = read_metrics(folder)
    training = [row for row in rows if row["kind"] == "train" and not isinstance(row["loss"], str)]
    validation = [row for row in rows if row["kind"] == "validation"]
    if not training:
        raise ValueError(f"{folder} has no training steps to draw yet")
    figure, axes = _figure(2)
    for axis, key, title in ((axes[0], "loss", "cross-entropy"), (axes[1], "accuracy", "top-1, %")):
        scale = 100 if key == "accuracy" else 1
        steps = np.array([row["step"] for row in training])
        values = scale * np.array([row[key] for row in training])
        axis.plot(steps, values, color="tab:blue", alpha=0.2, linewidth=0.8)
        axis.plot(*_smooth(steps, values), color="tab:blue", label="training architectures and images")
        if validation and key == "accuracy":
            axis.plot(
                [row["step"] for row in validation],
                [scale * row["top1"] for row in validation],
                "o-",
                color="tab:orange",
                label="unseen architectures, validation images",
            )
        axis.set(xlabel="updates", title=title)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return _save(figure, folder / "curves.png")


def histogram_picture(accuracies: Mapping[str, Sequence[float]], title: str, path: pathlib.Path) -> pathlib.Path:
    """Draws the distribution of accuracies in [0, 1] over architectures, one colour per way of initialising."""
    figure, (axis,) = _figure(1)
    bins = np.linspace(0, 100, 41).tolist()
    for label, values in accuracies.items():
        shown = f"{label}: mean {100 * np.mean(values):.1f}, max {100 * np.max(values):.1f}"
        axis.hist(100 * np.asarray(values), bins=bins, alpha=0.6, label=shown)
    axis.set(xlabel="top-1, %", ylabel="architectures", title=title)
    axis.legend(fontsize=8)
    return _save(figure, path)


def start_picture(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str, path: pathlib.Path
) -> pathlib.Path:
    """Draws mean accuracy in % over updates from several starts, with bands of one standard error.

    Args:
      curves: by start, numbers of updates, means and standard errors.
      title: of the picture.
      path: of the file.
    """
    figure, (axis,) = _figure(1)
    for label, (steps, means, errors) in curves.items():
        (line,) = axis.plot(steps, means, "o-", markersize=3, label=label)
        axis.fill_between(steps, means - errors, means + errors, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set_xscale("symlog", linthresh=10)
    axis.set_xlim(left=0)
    axis.set(xlabel="updates", ylabel="top-1 of the networks, %", title=title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return _save(figure, path)


def history_picture(
    names: Sequence[str], curves: Mapping[str, Sequence[float | None]], path: pathlib.Path
) -> pathlib.Path:
    """Draws figures over releases, each by its title in axes of its own from 0 on; None leaves a release out."""
    figure, axes = _figure(len(curves))
    places = np.arange(len(names))
    for axis, (title, values) in zip(axes, curves.items(), strict=True):
        axis.plot(places, [np.nan if value is None else value for value in values], "o-", color="tab:blue")
        axis.margins(y=0.1)
        axis.set(title=title)
        axis.set_ylim(bottom=0)
        axis.set_xticks(places, names, rotation=30, ha="right", fontsize=8)
        axis.grid(alpha=0.3)
    return _save(figure, path)


def _smooth(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of consecutive windows."""
    window = max(min(WINDOW, len(steps) // 10), 1)
    whole = len(steps) // window * window
    return steps[:whole].reshape(-1, window).mean(1), values[:whole].reshape(-1, window).mean(1)


def _figure(columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return path
