"""Forward and backward pass of 16 DeepNets-1M networks, layer by layer: C 32, fc_dim 64, 64 images of 32 x 32.

The public release needs 8.8 to 10.2 s for them on two cores of the machine on which this runs in 6 s or less.
"""

import collections
import functools
import json
import os
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.networks import Plan, Runner, network_plan
from ghn_jax.networks.compiled import ProgramKey
from ghn_jax.networks.runner import FlatParams, Step, schedule
from ghn_jax.networks.segments import signature

NETWORKS = 16
IMAGES = (64, 32, 32, 3)
THREADS = 2


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
    for step in steps:
        for paths, leaves in zip(step.paths, signature(step.key.segment, step.key.inputs).params, strict=True):
            for (path, _), (_, leaf) in zip(paths, leaves, strict=True):
                value = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
                value = value if len(leaf.shape) > 1 else np.full(leaf.shape, path[-1] == "scale")
                params[path] = jnp.asarray(value, jnp.float32)
    return params


def matmul_peak() -> float:
    """GFLOP/s of a square float32 matrix product."""
    size = 2048
    square = jnp.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    return 2 * size**3 / 1e9 / min(_seconds(lambda: product(square)) for _ in range(8))


def _seconds(call) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def by_kind(runner: Runner, work: list[tuple[Step, ...]], repeats: int) -> dict[str, tuple[int, float, float]]:
    """For each kind of op: calls, seconds of all its forward and backward calls, each timed on its own."""
    uses = collections.Counter(step.key for steps in work for step in steps)
    steps = {step.key: step for steps in work for step in steps}
    total: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0, 0.0])
    for key, count in uses.items():
        program = runner.programs.get(key)
        shapes = signature(key.segment, key.inputs)
        params = [{path: jnp.full(leaf.shape, 0.1) for path, leaf in own} for own in shapes.params]
        inputs = tuple(jax.random.normal(jax.random.key(0), leaf.shape) for leaf in key.inputs)
        rng = jax.random.key(0) if key.segment.random else None
        outputs, residuals = program.forward(params, inputs, rng)
        forward = min(_seconds(lambda: program.forward(params, inputs, rng)) for _ in range(repeats))  # noqa: B023
        pull = program.backward or program.forward
        backward = min(_seconds(lambda: pull(residuals, outputs)) for _ in range(repeats))  # noqa: B023
        for index, value in enumerate((count, count * forward, count * backward)):
            total[steps[key].kind][index] += value
    return {kind: (int(calls), forward, backward) for kind, (calls, forward, backward) in total.items()}


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
    shapes = signature(key.segment, key.inputs)
    rng = jax.random.key(0) if key.segment.random else None
    params = [dict(own) for own in shapes.params]
    jaxpr = jax.make_jaxpr(lambda params, inputs: key.segment.run(params, inputs, rng, key.train))(params, key.inputs)
    return products(jaxpr.jaxpr) * (3 if all(key.wanted) else 2)


def run(repeats: int) -> dict[str, float]:
    plans: list[Plan] = [network_plan(args) for args in networks()]
    shape = jax.ShapeDtypeStruct(IMAGES, jnp.float32)
    work = [schedule(plan, shape, True, True, None) for plan in plans]
    runner = Runner()
    runner.warm(plans, IMAGES, threads=THREADS)
    report = runner.report()
    print(f"compiled {report.compiled} layers in {report.seconds:.1f} s of {THREADS} threads")
    params = [random_params(steps) for steps in work]
    images = jax.random.normal(jax.random.key(0), IMAGES)
    labels, key = jnp.arange(IMAGES[0]) % 10, jax.random.key(1)

    def step():
        return runner.meta_batch(plans, params, images, labels, threads=THREADS, rng=key)

    step()
    seconds = statistics.median(_seconds(step) for _ in range(repeats))
    peak = matmul_peak()
    kinds = by_kind(runner, work, repeats)
    print(f"{'op':16} {'calls':>6} {'forward':>8} {'backward':>9}  (seconds, each call alone)")
    for kind, (calls, forward, backward) in sorted(kinds.items(), key=lambda item: -sum(item[1][1:])):
        print(f"{kind:16} {calls:6} {forward:8.3f} {backward:9.3f}")
    gflops = sum(operations(step.key) for steps in work for step in steps) / 1e9 / seconds
    print(f"{len(plans)} networks: {seconds:.2f} s, {gflops:.1f} GFLOP/s; matrix product {peak:.1f} GFLOP/s")
    return {"seconds": seconds, "gflops": gflops, "peak_gflops": peak}
