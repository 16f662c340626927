"""What a hypernetwork was trained on, and where an architecture leaves that."""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Sequence

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.hypernet.json_fields import checked_fields


@dataclasses.dataclass(frozen=True)
class TrainingRange:
    """Stored beside a packaged hypernetwork's weights.

    Attributes:
      description: images and networks, in words.
      num_classes: K of the task.
      max_nodes: of the largest network.
      max_channels: largest number of channels in or out of one of its tensors.
      max_kernel: largest height or width of a kernel or pooling window.
    """

    description: str
    num_classes: int
    max_nodes: int
    max_channels: int
    max_kernel: int

    def departures(self, graph: ArchGraph) -> list[str]:
        """Where an architecture is larger than what was trained on, in words; images cannot be told from it."""
        sizes = graph.node_shapes.reshape(-1, 2, 2).max(axis=(0, 2))
        found = (
            (graph.num_nodes, self.max_nodes, "nodes"),
            (int(sizes[0]), self.max_channels, "channels"),
            (int(sizes[1]), self.max_kernel, "pixels of kernel"),
        )
        words = [f"{size} {what} (trained up to {most})" for size, most, what in found if size > most]
        if graph.num_classes not in (None, self.num_classes):
            words.append(f"{graph.num_classes} classes (trained on {self.num_classes})")
        return words


def read_training_range(path: pathlib.Path) -> TrainingRange | None:
    """What the JSON file beside a packaged hypernetwork says; None without a file.

    Raises:
      ValueError: for another content; names the file.
    """
    if not path.is_file():
        return None
    try:
        return TrainingRange(**checked_fields(TrainingRange, json.loads(path.read_text()), str(path)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no description of a hypernetwork's training: {error}") from None


_told: set[TrainingRange] = set()


def warn_once(trained_on: TrainingRange | None, graphs: Sequence[ArchGraph]) -> None:
    """Says as a UserWarning what a hypernetwork was trained on and where the architectures leave that, once a process.

    Nothing is said of a hypernetwork whose range is not known, such as one that the user has trained.
    """
    if trained_on is None or trained_on in _told or not graphs:
        return
    _told.add(trained_on)
    departing = [(graph.name, words) for graph in graphs if (words := trained_on.departures(graph))]
    if departing:
        name, words = departing[0]
        where = f"Architecture {name!r} is outside of that: {', '.join(words)}. Its"
    else:
        where = "For other images, classes or larger architectures its"
    warnings.warn(
        f"this hypernetwork was trained on {trained_on.description}, and nothing else. {where} parameters have the "
        "right shapes and scales, but no accuracy was measured; load another hypernetwork (ghn_jax.load_ghn) for "
        "other tasks. This is said once.",
        UserWarning,
        stacklevel=3,
    )
