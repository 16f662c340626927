"""How fast GHN-3 predicts: T on ResNet-50 and on eight training networks, and XL with the memory that it takes."""

import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ghn_jax.deepnets.predefined import resnet50_graph
from ghn_jax.graphs import ArchGraph
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, predict_params, prepare
from ghn_jax.hypernet.ghn import split_weights
from ghn_jax.hypernet.programs import apply_vjp, embed_with_vjp_program

IMAGENET = 1000, 224
"""Classes and image size."""

ROOT = pathlib.Path(__file__).resolve().parents[2]


def figures(networks: Sequence[ArchGraph], seconds: Callable[[Callable[[], Any]], float]) -> dict[str, float]:
    """Times GHN-3; prints a table.

    Args:
      networks: eight training networks.
      seconds: median time of a function.
    """
    resnet = resnet50_graph(*IMAGENET)
    tiny, variables = random_ghn("ghn3-t")
    batch = jax.device_put(prepare(tiny.config, networks).batch)
    weights, _ = split_weights(variables)

    def encoder() -> Any:
        states, vjp = embed_with_vjp_program(tiny)(weights, batch)
        return apply_vjp(vjp, states)

    found = {
        "ghn3_t_steady_s": seconds(lambda: predict_params(tiny, variables, [resnet])),
        "ghn3_t_encoder_forward_backward_s": seconds(encoder),
    }
    nodes = sum(graph.num_nodes for graph in networks)
    print(f"GHN-3-T, ResNet-50: {found['ghn3_t_steady_s']:.4f} s")
    print(f"GHN-3-T, encoder of {len(networks)} training networks ({nodes} nodes), forward and backward:", end=" ")
    print(f"{found['ghn3_t_encoder_forward_backward_s']:.4f} s", flush=True)
    xl, memory = (float(word) for word in _own_process("ghn3-xl"))
    found |= {"ghn3_xl_steady_s": xl, "ghn3_xl_gigabytes": memory}
    print(f"GHN-3-XL, random weights, ResNet-50: {xl:.2f} s, at most {memory:.1f} GB resident")
    return found


def random_ghn(name: Any) -> tuple[GHN, Any]:
    """A published size, of ImageNet, with random weights."""
    ghn = GHN(GHNConfig.preset(name, "imagenet"))
    shapes = jax.eval_shape(lambda: init_ghn(ghn, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def drawn(leaf: Any) -> jax.Array:
        values = rng.standard_normal(leaf.shape, np.float32)
        values *= np.float32(0.05)
        return jax.device_put(values)

    return ghn, jax.tree.map(drawn, shapes)


def _own_process(name: str) -> list[str]:
    """Median seconds and gigabytes of a process that does nothing else."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, __file__, name], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


def main() -> None:
    ghn, variables = random_ghn(sys.argv[1])
    resnet = resnet50_graph(*IMAGENET)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(predict_params(ghn, variables, prepare(ghn.config, [resnet])))
        times.append(time.perf_counter() - start)
    print(sorted(times[2:])[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


if __name__ == "__main__":
    main()
