"""Pictures of a set of architectures."""

import os

import numpy as np

from ghn_jax.deepnets.statistics import COLUMNS, PUBLISHED, PUBLISHED_SHARES
from ghn_jax.files import atomic_file


def draw_statistics(rows: np.ndarray, split: str, path: str | os.PathLike[str]) -> None:
    """Histograms of sizes and degrees, and the shares of primitives, with the published numbers marked.

    Args:
      rows: float (architectures, len(COLUMNS)) as `statistics.measure` makes them.
      split: which published numbers to mark.
      path: image file; its ending gives the format.
    """
    import matplotlib.pyplot as plt

    values = dict(zip(COLUMNS, np.asarray(rows, float).T, strict=True))
    known = PUBLISHED.get(split)
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    panels = (
        ("nodes", values["nodes"], known.nodes if known else (), 40),
        ("cells", values["cells"], known.cells if known else (), np.arange(3.5, values["cells"].max() + 1)),
        ("weights at C = 32, log10", np.log10(values["params"]), (), 40),
        ("mean degree", 2 * values["edges"] / values["nodes"], (known.mean_degree,) if known else (), 40),
        ("mean path", values["path"][~np.isnan(values["path"])], (known.mean_path,) if known else (), 40),
    )
    for axis, (title, data, marks, bins) in zip(axes.flat, panels, strict=False):
        axis.hist(data, bins=bins, color="tab:blue")
        for mark in marks:
            axis.axvline(mark, color="tab:orange", linestyle="--")
        axis.set_xlabel(title)
        axis.set_ylabel("architectures")
    total = values["nodes"].sum()
    labels = [primitive.label for primitive in PUBLISHED_SHARES]
    places = np.arange(len(labels))
    bars = axes.flat[-1]
    bars.barh(places, [100 * values[label].sum() / total for label in labels], color="tab:blue", label="here")
    bars.plot(list(PUBLISHED_SHARES.values()), places, "o", color="tab:orange", label="published (train)")
    bars.set_yticks(places, labels)
    bars.invert_yaxis()
    bars.set_xlabel("% of nodes")
    bars.legend()
    figure.suptitle(f"{len(rows):,} architectures of {split}; dashed: published ranges and means")
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=120)
    plt.close(figure)
