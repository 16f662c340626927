"""Bytes that the forward pass of one network keeps for its backward pass.

``python experiments/benchmarks/memory.py`` prints them for the 16 networks of `benchmarks.networks` at C 32, 64 images
of 32 x 32. It uses nothing but `Runner` and `network_plan`, so that with another `PYTHONPATH` it measures another
version of the package in the same way.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from flax.traverse_util import flatten_dict

from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.fields import COUNT, check_fields
from ghn_jax.networks import Runner, TargetNetwork, enable_compilation_cache, network_plan


def live_bytes(runner: Runner, call: Callable[[], Any]) -> int:
    """Most bytes of arrays that live when a layer is about to be called, less those that lived before.

    Layers are looked up in the forward pass, so that the last look-up sees all that is kept for the backward pass.
    """

    def total() -> int:
        return sum(array.nbytes for array in jax.live_arrays() if not array.is_deleted())

    before, most, get = total(), 0, runner.programs.get

    def counted(key: Any) -> Any:
        nonlocal most
        most = max(most, total() - before)
        return get(key)

    runner.programs.get = counted
    try:
        jax.block_until_ready(call())
    finally:
        runner.programs.get = get
    return most


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line."""

    networks: tyro.conf.Positional[int] = 16
    """How many networks, one after the other."""

    def __post_init__(self) -> None:
        check_fields(self, {"networks": COUNT})


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    enable_compilation_cache()
    images, labels = jnp.ones((64, 32, 32, 3)), jnp.arange(64) % 10
    runner, found = Runner(), []
    for index in range(options.networks):
        args = sample_args("train", index)[0].replace(C=32, fc_dim=64)
        shapes = jax.eval_shape(TargetNetwork(args).init, jax.random.key(0), images)["params"]
        params: Any = flatten_dict(jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.05), shapes))
        plan = network_plan(args)
        runner.warm([plan], images.shape, threads=2)
        call = lambda: runner.loss_and_grads(plan, params, images, labels, rng=jax.random.key(0))  # noqa: B023, E731
        found.append(live_bytes(runner, call))
        print(f"network {index}: {found[-1] / 1e6:.1f} MB", flush=True)
    print(json.dumps({"live_bytes": found, "live_peak_bytes": max(found)}))


if __name__ == "__main__":
    main()
