"""How fast a full-size GHN-2 predicts: ResNet-50 (23.5 M weights) and eight training networks (about 1,600 nodes).

The release takes 0.16 s for ResNet-50 and 1.0 s for the sweeps of the eight networks on 2 CPU cores. First calls are
timed as whole processes: interpreter, imports, reading the hypernetwork, compiling, predicting.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.predefined import resnet50_graph
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.deepnets.widths import draw_width
from ghn_jax.graphs import ArchGraph
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, load_ghn, predict_params, predict_with_vjp, prepare, save_file
from ghn_jax.hypernet.programs import embed_program

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = 1600
NETWORKS = 8


def run(repeats: int) -> dict[str, float]:
    """Times everything; prints a table."""
    from benchmarks import predict_ghn3  # not at the top: this file also runs as a program, without its package

    ghn = GHN(GHNConfig.preset("ghn2"))
    variables = init_ghn(ghn, jax.random.key(0))
    resnet = resnet50_graph()
    networks = training_networks()
    prepared = prepare(ghn.config, networks)
    batch = jax.device_put(prepared.batch)

    def forward_backward() -> Any:
        params, vjp = predict_with_vjp(ghn, variables, networks)
        return vjp(params)

    first, warm = first_calls(variables)
    figures = {
        "steady_s": seconds(lambda: predict_params(ghn, variables, [resnet]), repeats),
        "first_call_s": first,
        "warm_first_call_s": warm,
        "sweeps_forward_s": seconds(lambda: embed_program(ghn)(variables, batch), repeats),
        "ghn_forward_backward_s": seconds(forward_backward, repeats),
    }
    nodes = sum(graph.num_nodes for graph in networks)
    weights = sum(graph.num_params for graph in networks)
    forward = seconds(lambda: predict_params(ghn, variables, prepared), repeats)
    print(f"ResNet-50, {resnet.num_params / 1e6:.1f} M weights: {figures['steady_s']:.4f} s")
    print(f"first call, process and imports included: {first:.1f} s; with a warm compilation cache {warm:.1f} s")
    print(f"{NETWORKS} training networks, {nodes} nodes, {weights / 1e6:.1f} M weights:")
    print(f"  sweeps forward {figures['sweeps_forward_s']:.4f} s, whole forward {forward:.3f} s")
    print(f"  whole forward and backward {figures['ghn_forward_backward_s']:.3f} s (padding and planning included)")
    return figures | predict_ghn3.figures(networks, lambda function: seconds(function, repeats))


def training_networks() -> list[ArchGraph]:
    """Eight training architectures at training widths, the first that add up to about `NODES` nodes."""
    generator = np.random.default_rng(0)
    graphs: list[ArchGraph] = []
    index = 0
    while len(graphs) < NETWORKS:
        args, _ = sample_args("train", index, seed=3)
        graph = network_graph(draw_width(args, generator), f"train/{index}")
        index += 1
        share = (NODES - sum(other.num_nodes for other in graphs)) / (NETWORKS - len(graphs))
        if 0.5 * share <= graph.num_nodes <= 1.5 * share:
            graphs.append(graph)
    return graphs


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median of the runs after two for warming up."""
    times = []
    for _ in range(2 + max(repeats, 5)):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def first_calls(variables: Any) -> tuple[float, float]:
    """Seconds of a new process that predicts ResNet-50: with an empty compilation cache, and with the one it left."""
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / "ghn2.npz"
        save_file(saved, GHNConfig.preset("ghn2"), variables)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        times = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run([sys.executable, __file__, str(saved)], env=environment, check=True)
            times.append(time.perf_counter() - start)
    return times[0], statistics.median(times[1:])


if __name__ == "__main__":
    loaded = load_ghn(sys.argv[1])
    jax.block_until_ready(predict_params(loaded.ghn, loaded.variables, [resnet50_graph()]))
