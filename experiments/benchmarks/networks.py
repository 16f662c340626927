"""Forward and backward pass of 16 DeepNets-1M networks, layer by layer: C 32, fc_dim 64, 64 images of 32 x 32.

The public release needs 8.8 to 10.2 s for them on two cores of the machine on which this takes 3.6 s. Beside
times, what the backward pass keeps: `residual_bytes` are arrays that layers make for it alone (their inputs, outputs
and weights come on top, once each), and `live_peak_bytes` is all that the network which needs most keeps at the end of
its forward pass, see `benchmarks.memory`.
"""

import collections
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from benchmarks import layers
from benchmarks.memory import live_bytes
from ghn_jax.deepnets.count import product_count
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.networks import Plan, Runner, network_plan
from ghn_jax.networks.programs import ProgramKey, signature
from ghn_jax.networks.runner import FlatParams
from ghn_jax.networks.schedule import Step, schedule
from ghn_jax.runs.cores import divide_cores

NETWORKS = 16
IMAGES = (64, 32, 32, 3)
THREADS = 2
SIDE_BY_SIDE = 4
"""Calls of a layer that a thread makes while its time is taken."""


def networks() -> list[NetworkArgs]:
    """The first training networks of the reference files, or as many sampled ones."""
    beside = pathlib.Path(__file__).resolve().parents[3] / "shared" / "parity"
    folder = pathlib.Path(os.environ.get("GHN_JAX_PARITY", beside))
    meta = folder / "deepnets" / "deepnets1m_train_meta.json"
    if meta.exists():
        print(f"networks: the first {NETWORKS} of {meta.name}")
        nets = json.loads(meta.read_text())["train"]["nets"][:NETWORKS]
        return [NetworkArgs.from_json(net).replace(C=32, fc_dim=64) for net in nets]
    print(f"networks: {NETWORKS} sampled ones, for the reference files are absent (GHN_JAX_PARITY); figures differ")
    return [sample_args("train", index)[0].replace(C=32, fc_dim=64) for index in range(NETWORKS)]


def random_params(steps: tuple[Step, ...]) -> FlatParams:
    """Parameters of a network, kernels of He's scale."""
    rng = np.random.default_rng(0)
    params = {}
    for path, leaf in (param for step in steps for param in step.params):
        value = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        value = value if len(leaf.shape) > 1 else np.full(leaf.shape, path[-1] == "scale")
        params[path] = jnp.asarray(value, jnp.float32)
    return params


def matmul_peak() -> float:
    """GFLOP/s of square float32 matrix products, as many at once as networks."""
    size = 2048
    square = jnp.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    return 2 * size**3 / 1e9 / _seconds_beside(lambda: product(square), 8)


def _seconds(call) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _seconds_beside(call, repeats: int) -> float:
    """Seconds of a call with others like it beside, divided by how many run at once: the least of `repeats`."""
    with ThreadPoolExecutor(THREADS) as pool:
        calls = [call] * (SIDE_BY_SIDE * THREADS)

        def all_calls() -> None:
            list(pool.map(lambda call: jax.block_until_ready(call()), calls))

        return min(_seconds(all_calls) for _ in range(repeats)) / len(calls)


@dataclasses.dataclass
class Cost:
    """Of all calls of a kind of op: number, seconds with others beside, bytes kept for the backward pass."""

    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    residual_bytes: int = 0


def by_kind(runner: Runner, work: list[tuple[Step, ...]], repeats: int) -> dict[str, Cost]:
    """Cost of each kind of op."""
    uses = collections.Counter(step.key for steps in work for step in steps)
    kinds = {step.key: step.kind for steps in work for step in steps}
    total: dict[str, Cost] = collections.defaultdict(Cost)
    for key, count in uses.items():
        program = runner.programs.get(key)
        params = [jnp.full(leaf.shape, 0.1) for _, leaf in signature(key.layer, key.inputs).params]
        inputs = [jax.random.normal(jax.random.key(0), leaf.shape) for leaf in key.inputs]
        arguments = [*params, *inputs, *([jax.random.key(0)] if key.random else [])]
        output, *residuals = program.forward(*arguments)
        pull = program.backward or program.forward
        known = {id(array) for array in (output, *arguments)}
        cost = total[kinds[key]]
        cost.calls += count
        cost.forward += count * _seconds_beside(lambda: program.forward(*arguments), repeats)  # noqa: B023
        cost.backward += count * _seconds_beside(lambda: pull(*residuals, output), repeats)  # noqa: B023
        cost.residual_bytes += count * sum(array.nbytes for array in residuals if id(array) not in known)
    return total


def products(jaxpr: Any) -> float:
    """Floating-point operations of the convolutions and matrix products of a jaxpr."""
    total = 0.0
    for equation in jaxpr.eqns:
        size = float(np.prod(equation.outvars[0].aval.shape))
        if equation.primitive.name == "conv_general_dilated":
            total += 2 * size * float(np.prod(equation.invars[1].aval.shape[:3]))
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * size * float(np.prod([equation.invars[0].aval.shape[axis] for axis in contracted]))
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            total += products(inner) if hasattr(inner, "eqns") else 0
    return total


@functools.cache
def operations(key: ProgramKey) -> float:
    """Operations of the plain form, forward and backward: one product more for each operand with a gradient."""
    leaves = [leaf for _, leaf in signature(key.layer, key.inputs).params]
    paths = [path for path, _ in signature(key.layer, key.inputs).params]

    def run(params, inputs):
        tree = {"params": traverse_util.unflatten_dict(dict(zip(paths, params, strict=True)))}
        rngs = {"dropout": jax.random.key(0)} if key.random else None
        return key.layer.apply(tree, *inputs, train=key.random, rngs=rngs)

    jaxpr = jax.make_jaxpr(run)(leaves, key.inputs)
    return products(jaxpr.jaxpr) * (3 if all(key.wanted) else 2)


def export(file: pathlib.Path) -> None:
    """Writes the networks' layers."""
    shape = jax.ShapeDtypeStruct(IMAGES, jnp.float32)
    layers.write((step for args in networks() for step in schedule(network_plan(args), shape, True, True, None)), file)


def run(repeats: int) -> dict[str, float]:
    divide_cores(THREADS)
    shape = jax.ShapeDtypeStruct(IMAGES, jnp.float32)
    runner = Runner()
    longest_first = sorted(networks(), key=product_count, reverse=True)  # as in training
    plans: list[Plan] = [network_plan(args) for args in longest_first]
    work = [schedule(plan, shape, True, True, None) for plan in plans]
    runner.warm(plans, IMAGES, threads=THREADS)
    report = runner.report()
    print(f"compiled {report.compiled} layers in {report.seconds:.1f} s of {THREADS} threads")
    params = [random_params(steps) for steps in work]
    images = jax.random.normal(jax.random.key(0), IMAGES)
    labels, key = jnp.arange(IMAGES[0]) % 10, jax.random.key(1)

    def one(plan, own):
        return runner.loss_and_grads(plan, own, images, labels, rng=key)

    def step():
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(one, plans, params))

    jax.block_until_ready(step())
    seconds = statistics.median(_seconds(step) for _ in range(repeats))
    peak = matmul_peak()
    live = max(live_bytes(runner, functools.partial(one, *pair)) for pair in zip(plans, params, strict=True))
    kinds = by_kind(runner, work, repeats)
    print(f"{'op':16} {'calls':>6} {'forward':>8} {'backward':>9} {'residual MB':>12}  (seconds, two at a time)")
    for kind, cost in sorted(kinds.items(), key=lambda item: -item[1].forward - item[1].backward):
        mega = cost.residual_bytes / 1e6
        print(f"{kind:16} {cost.calls:6} {cost.forward:8.3f} {cost.backward:9.3f} {mega:12.1f}")
    residual = sum(cost.residual_bytes for cost in kinds.values())
    print(f"residuals {residual / 1e6:.1f} MB in all networks; the one that keeps most keeps {live / 1e6:.1f} MB")
    gflops = sum(operations(step.key) for steps in work for step in steps) / 1e9 / seconds
    print(f"{len(plans)} networks: {seconds:.2f} s, {gflops:.1f} GFLOP/s; matrix product {peak:.1f} GFLOP/s")
    return {
        "seconds": seconds,
        "gflops": gflops,
        "peak_gflops": peak,
        "residual_bytes": residual,
        "live_peak_bytes": live,
        **{f"residual_bytes_{kind}": cost.residual_bytes for kind, cost in kinds.items()},
    }
