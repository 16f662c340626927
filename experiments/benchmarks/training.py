"""Training eight target networks: side by side, one core each, beside one after the other on all cores.

The networks are the first of the training split at C = 32 that need less than a fixed number of products; 64 random
images of 32 x 32, SGD with momentum. Each way runs in a process of its own, as the share of the cores that a network
gets is fixed when JAX starts.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import jax
import numpy as np

from ghn_jax.deepnets import network_graph, sample_architecture
from ghn_jax.deepnets.count import product_count
from ghn_jax.images.image_set import ImageSet, ImageSplit, Style
from ghn_jax.runs.cores import available_cores, divide_cores
from ghn_jax.runs.metrics import read_metrics
from ghn_jax.training import Given, Net, NetTrainConfig, start_params, train_networks

ROOT = pathlib.Path(__file__).resolve().parents[2]
NETWORKS, IMAGES, MOST_PRODUCTS = 8, 64, 80_000_000


def run(repeats: int) -> dict[str, float]:
    """Medians of `repeats` updates after two that warm up."""
    found = {}
    for name, threads in (("side_by_side", available_cores()), ("one_after_another", 1)):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, str(threads), str(repeats)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = json.loads(done.stdout.splitlines()[-1])
        found[f"{name}_nets_images_per_s"] = NETWORKS * IMAGES / seconds
        rate = NETWORKS * IMAGES / seconds
        print(f"{name:18s}{seconds:8.3f} s an update of {NETWORKS} networks, {rate:8.1f} nets x images/s")
    return found


def main(threads: int, repeats: int) -> None:
    """Prints seconds an update."""
    divide_cores(threads)
    rng = np.random.default_rng(0)
    split = ImageSplit(
        rng.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8), rng.integers(0, 10, IMAGES).astype(np.int32)
    )
    images = ImageSet("random", split, split, split, 10, Style((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    nets: list[Net] = []
    number = 0
    while len(nets) < NETWORKS:
        args = sample_architecture("train", number).args
        number += 1
        if args is not None and product_count(args.replace(C=32)) < MOST_PRODUCTS:
            graph = network_graph(args.replace(C=32), f"train-{number - 1}")
            params = start_params("he", graph, jax.random.key(number), Given())
            nets.append(Net(graph.name, args.replace(C=32), graph, params))
    config = NetTrainConfig(steps=repeats + 2, batch_size=IMAGES, test_images=IMAGES, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        train_networks(nets, images, config, pathlib.Path(folder))
        rows = [row["seconds"] for row in read_metrics(pathlib.Path(folder)) if row["kind"] == "train"]
    print(json.dumps(statistics.median(rows[2:])))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
