"""How fast architectures of DeepNets-1M are drawn: arguments, graph, specs of all tensors, all distances.

The sampler of the original release draws 5 architectures a second; the goal here is 500 on one core.
"""

import statistics
import time

from ghn_jax.deepnets import sample_architecture

COUNT = 500
PARTS = ("sampling", "graph and specs", "distances")


def run(repeats: int) -> dict[str, float]:
    """Times `COUNT` training architectures, always the same ones, on one core; prints where the time goes."""
    _seconds()  # warms up
    runs = [_seconds() for _ in range(repeats)]
    for name, seconds in zip(PARTS, zip(*runs, strict=True), strict=True):
        print(f"{name:<18}{1e3 * statistics.median(seconds) / COUNT:8.3f} ms an architecture")
    figures = {"architectures_per_second": COUNT / statistics.median(sum(run) for run in runs)}
    print(f"{figures['architectures_per_second']:.0f} architectures per second on one core")
    return figures


def _seconds() -> tuple[float, float, float]:
    """Seconds of each part; one architecture after the other, as a stream makes them."""
    sampling = building = measuring = 0.0
    for index in range(COUNT):
        begin = time.perf_counter()
        architecture = sample_architecture("train", index, seed=1)
        sampled = time.perf_counter()
        graph = architecture.graph()
        built = time.perf_counter()
        graph.distances(50)
        done = time.perf_counter()
        sampling += sampled - begin
        building += built - sampled
        measuring += done - built
    return sampling, building, measuring
