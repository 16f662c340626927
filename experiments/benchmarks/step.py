"""A whole meta-training step: GHN-2, 8 training networks, 64 images of CIFAR-10's size.

The release takes 6 to 11 s a step on two CPU cores. Networks are those that training draws, 1,200 to 1,850 nodes a
meta-batch at C = 32; everything is compiled before the clock starts. `calls` are those of compiled programs in a step.
"""

import gzip
import json
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ghn_jax.deepnets import ArchitectureStream, MetaBatch, network_graph
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn
from ghn_jax.metatraining.config import RunConfig
from ghn_jax.metatraining.optimisation import OptimiserConfig, initial_state
from ghn_jax.metatraining.step import MetaStep, StepReport
from ghn_jax.runs import devices
from ghn_jax.runs.cores import divide_cores

NODES = (1_200, 1_850)
IMAGES, META_BATCH = 64, 8


def meta_batch() -> MetaBatch:
    """The first meta-batch of the training stream of the right size, with all networks at C = 32."""
    stream = ArchitectureStream("train", meta_batch=META_BATCH)
    while True:
        drawn = next(stream)
        if NODES[0] <= sum(graph.num_nodes for graph in drawn.graphs) <= NODES[1]:
            args = tuple(args.replace(C=32) for args in drawn.args)
            graphs = tuple(network_graph(a, g.name) for a, g in zip(args, drawn.graphs, strict=True))
            return MetaBatch(drawn.start, drawn.end, args, graphs)


def count_calls(function: Callable[[], Any]) -> int:
    """Calls of compiled programs that a function makes, from a trace of JAX's profiler."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            jax.block_until_ready(function())
        (trace,) = pathlib.Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return sum(event.get("name") == "ParseArguments" for event in events)


def run(repeats: int) -> dict[str, float]:
    """Medians of `repeats` steps: whole, the hypernetwork's and the networks' share, the rest."""
    divide_cores(RunConfig().threads)
    batch = meta_batch()
    ghn = GHN(GHNConfig())
    params = init_ghn(ghn, jax.random.key(0))["params"]
    config, mesh = OptimiserConfig(), devices.arch_mesh(jax.devices()[:1])

    def replicated(params: Any) -> Any:
        return devices.replicate(initial_state(config, params), mesh)

    state = replicated(params)
    step = MetaStep(ghn, config, mesh, params, timed=True)
    rng = np.random.default_rng(0)
    images = jax.numpy.asarray(rng.normal(size=(IMAGES, 32, 32, 3)), jax.numpy.float32)
    labels = jax.numpy.asarray(rng.integers(0, 10, IMAGES), jax.numpy.int32)
    reports: list[StepReport] = []
    for number in range(repeats + 2):
        state, report = step(state, batch, (images, labels), config.learning_rate, jax.random.key(number))
        reports.append(report)
    reports = reports[2:]
    whole, ghn_s, nets_s = (
        statistics.median(getattr(report, field) for report in reports)
        for field in ("seconds", "ghn_seconds", "nets_seconds")
    )
    calls = count_calls(lambda: step(state, batch, (images, labels), config.learning_rate, jax.random.key(0))[0].params)
    (runner,) = step.runners
    compiled = runner.report()
    figures = {
        "step_s": whole,
        "ghn_s": ghn_s,
        "nets_s": nets_s,
        "rest_s": statistics.median(r.seconds - r.ghn_seconds - r.nets_seconds for r in reports),
        "nets_images_per_s": META_BATCH * IMAGES / whole,
        "nodes": float(sum(graph.num_nodes for graph in batch.graphs)),
        "calls": float(calls),
        "compiled_layers": float(compiled.compiled),
        "compile_s": compiled.seconds,
    }
    for name, value in figures.items():
        print(f"{name:18s} {value:10.3f}")
    return figures
