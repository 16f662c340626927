"""Meta-training of GHN-2 from an empty compilation cache, 64 images of 16 x 16: seconds to the 1st, 10th, 100th update.

The networks are those of a run with the default configuration, in its order; images are random. Takes several minutes
of two cores. Seconds count from the start of the process, so imports and the start of the sampler are in them.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from ghn_jax.deepnets.sources import ArchitectureConfig, Task, training_stream
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn
from ghn_jax.images import Batch
from ghn_jax.metatraining.ahead import MetaBatches
from ghn_jax.metatraining.config import RunConfig
from ghn_jax.metatraining.optimisation import OptimiserConfig, initial_state
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.runs import devices
from ghn_jax.runs.cores import divide_cores

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = (64, 16, 16, 3)
SHOWN = (1, 10, 25, 100)
COUNTED = 200
"""Networks over which programs are counted."""


class RandomImages:
    """The same images and labels for every update."""

    steps_per_epoch = 1

    def batch(self, step: int) -> Batch:
        """Images (64, 16, 16, 3) and labels (64,)."""
        rng = np.random.default_rng(0)
        images = jax.numpy.asarray(rng.normal(size=IMAGES), jax.numpy.float32)
        return images, jax.numpy.asarray(rng.integers(0, 10, IMAGES[0]), jax.numpy.int32)

    def close(self) -> None:
        """Nothing to end."""


def run(repeats: int) -> dict[str, float]:
    """One run whatever `repeats` says; prints a line for each update that is reported."""
    del repeats
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        start = str(time.time())
        command = [sys.executable, __file__, start]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            figures: dict[str, float] = {}
            for line in process.stdout or ():
                figures |= json.loads(line)
                print(line, end="", flush=True)
        if process.returncode:
            raise SystemExit(f"the cold run ended with status {process.returncode}")
    return figures


def main(start: float) -> None:
    """Trains up to the last update that is reported."""
    ghn, optimiser, options, config = GHN(GHNConfig()), OptimiserConfig(), RunConfig(), ArchitectureConfig()
    divide_cores(options.threads)
    mesh = devices.arch_mesh(jax.devices()[:1])
    params = init_ghn(ghn, jax.random.key(0))["params"]
    state = devices.replicate(initial_state(optimiser, params), mesh)
    step = MetaStep(ghn, optimiser, mesh, params, threads=options.threads)
    source = training_stream(config, Task(10, IMAGES[1]), 0, 0)
    ahead, threads = options.compile_ahead, options.compile_threads
    batches = MetaBatches(source, RandomImages(), step, IMAGES, first=0, ahead=ahead, threads=threads)
    try:
        for update in range(1, max(SHOWN) + 1):
            batch = batches.next()
            state, _ = step(state, batch.architectures, batch.images, optimiser.learning_rate, jax.random.key(update))
            if update in SHOWN:
                print(json.dumps({f"update_{update}_s": time.time() - start}), flush=True)
            if update * config.meta_batch == COUNTED:
                compiled = step.compile_metrics()["layers_compiled"]
                print(json.dumps({"programs_a_network": compiled / COUNTED}), flush=True)
        print(json.dumps({"compiled_layers": step.compile_metrics()["layers_compiled"]}), flush=True)
    finally:
        batches.close()


if __name__ == "__main__":
    main(float(sys.argv[1]))
