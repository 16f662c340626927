"""How fast architectures of DeepNets-1M are drawn: arguments, graph, specs of all tensors, all distances.

The release makes 5 architectures a second (FIELD: cost of the release); the goal here is 500 on one core.
"""

import statistics
import time
from collections.abc import Callable

from ghn_jax.deepnets import Architecture, sample_architecture
from ghn_jax.graphs import ArchGraph

COUNT = 500


def run(repeats: int) -> dict[str, float]:
    """Times `COUNT` training architectures, always the same ones, on one core; prints where the time goes."""
    parts: dict[str, list[float]] = {"sampling": [], "graph and specs": [], "distances": []}
    for _ in range(1 + repeats):  # the first run warms up
        architectures: list[Architecture] = []
        graphs: list[ArchGraph] = []
        parts["sampling"].append(_timed(lambda out=architectures: out.extend(_sample())))
        parts["graph and specs"].append(_timed(lambda new=architectures, out=graphs: out.extend(_graphs(new))))
        parts["distances"].append(_timed(lambda new=graphs: [graph.distances(50) for graph in new]))
    totals = [sum(run) for run in list(zip(*parts.values(), strict=True))[1:]]
    figures = {"architectures_per_second": COUNT / statistics.median(totals)}
    for name, seconds in parts.items():
        print(f"{name:<18}{1e3 * statistics.median(seconds[1:]) / COUNT:8.3f} ms an architecture")
    print(f"{figures['architectures_per_second']:.0f} architectures per second on one core")
    return figures


def _sample() -> list[Architecture]:
    return [sample_architecture("train", index, seed=1) for index in range(COUNT)]


def _graphs(architectures: list[Architecture]) -> list[ArchGraph]:
    return [architecture.graph() for architecture in architectures]


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
