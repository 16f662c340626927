"""Networks as chains of compiled layers: forward, and forward + backward, without a program of their own."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks.compiled import CompileReport, Device, ProgramKey, Programs, as_dtype
from ghn_jax.networks.plan import IMAGES, Plan
from ghn_jax.networks.segments import SegmentCall, signature, split

FlatParams = Mapping[Path, jax.Array]


@dataclasses.dataclass(frozen=True)
class Step:
    """One program call of a schedule.

    Attributes:
      key: its program.
      paths: for each layer of the segment, (path in the network, path in the layer) of each parameter.
      inputs, outputs: value ids.
      wanted: ids of the inputs whose cotangents are wanted.
      last: ids that are used for the last time here.
      kind: name of the op, for reports.
    """

    key: ProgramKey
    paths: tuple[tuple[tuple[Path, Path], ...], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    wanted: tuple[int, ...]
    last: tuple[int, ...]
    kind: str


@functools.lru_cache(maxsize=1024)
def schedule(
    plan: Plan, images: jax.ShapeDtypeStruct, backward: bool, train: bool, device: Device | None
) -> tuple[Step, ...]:
    """Program calls of `plan` for images of a given shape."""
    calls = split(plan)
    last_use = {i: place for place, call in enumerate(calls) for i in call.inputs}
    shapes = {IMAGES: images}
    steps = []
    for place, call in enumerate(calls):
        inputs = tuple(shapes[i] for i in call.inputs)
        shape = signature(call.segment, inputs)
        shapes.update(zip(call.outputs, shape.outputs, strict=True))
        wanted = tuple(i != IMAGES for i in call.inputs) if backward else ()
        paths = tuple(
            tuple(((*prefix, *path), path) for path, _ in own)
            for prefix, own in zip(call.prefixes, shape.params, strict=True)
        )
        last = tuple(i for i in call.inputs if last_use[i] == place)
        steps.append(_step(call, ProgramKey(call.segment, inputs, wanted, train, device), paths, last))
    return tuple(steps)


def _step(call: SegmentCall, key: ProgramKey, paths: Any, last: tuple[int, ...]) -> Step:
    wanted = tuple(i for i in call.inputs if i != IMAGES)
    return Step(key, paths, call.inputs, call.outputs, wanted, last, call.kind)


@functools.partial(jax.jit, static_argnums=2)
def _loss(logits: jax.Array, labels: jax.Array, label_smoothing: float) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and its gradient for logits (B, K)."""

    def loss(logits: jax.Array) -> jax.Array:
        classes = logits.shape[-1]
        targets = jax.nn.one_hot(labels, classes) * (1 - label_smoothing) + label_smoothing / classes
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()

    return jax.value_and_grad(loss)(logits)


@functools.partial(jax.jit, donate_argnums=0)
def _add(x: jax.Array, y: jax.Array) -> jax.Array:
    return x + y


class Runner:
    """Runs any network layer by layer; layers are compiled once per shape and shared by all networks.

    Args:
      capacity: how many compiled layers are held at most.
      device: where networks run; None for JAX's default device.
    """

    def __init__(self, capacity: int = 4096, device: Device | None = None) -> None:
        self.programs = Programs(capacity)
        self.device = device

    def report(self) -> CompileReport:
        """What was compiled so far."""
        return self.programs.report()

    def forward(
        self,
        plan: Plan,
        params: FlatParams,
        images: jax.Array,
        *,
        rng: jax.Array | None = None,
        train: bool = False,
        dtype: Any = jnp.float32,
    ) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3)."""
        steps, values, rng = self._start(plan, images, backward=False, train=train, dtype=dtype, rng=rng)
        for place, step in enumerate(steps):
            program = self.programs.get(step.key)
            key = jax.random.fold_in(rng, place) if train and step.key.segment.random else None
            outputs = program.forward(_gather(params, step), tuple(values[i] for i in step.inputs), key)
            values.update(zip(step.outputs, outputs, strict=True))
            for i in step.last:
                del values[i]
        return values[plan.output]

    def loss_and_grads(
        self,
        plan: Plan,
        params: FlatParams,
        images: jax.Array,
        labels: jax.Array,
        *,
        label_smoothing: float = 0.0,
        rng: jax.Array | None = None,
        train: bool = True,
        dtype: Any = jnp.float32,
    ) -> tuple[jax.Array, jax.Array, dict[Path, jax.Array]]:
        """Mean cross-entropy, logits (B, K), and the loss's gradient for every parameter of the plan."""
        steps, values, rng = self._start(plan, images, backward=True, train=train, dtype=dtype, rng=rng)
        held = []
        for place, step in enumerate(steps):
            program = self.programs.get(step.key)
            key = jax.random.fold_in(rng, place) if train and step.key.segment.random else None
            outputs, residuals = program.forward(_gather(params, step), tuple(values[i] for i in step.inputs), key)
            values.update(zip(step.outputs, outputs, strict=True))
            for i in step.last:
                del values[i]
            held.append((step, program.backward, residuals))
        del outputs, residuals
        logits = values.pop(plan.output)
        loss, gradient = _loss(logits, labels, label_smoothing)
        pending = {plan.output: gradient}
        cotangents: dict[Path, jax.Array] = {}
        while held:
            step, backward, residuals = held.pop()
            of_params, of_inputs = backward(residuals, tuple(pending.pop(i) for i in step.outputs))
            del residuals
            for own, paths in zip(of_params, step.paths, strict=True):
                cotangents.update({path: own[local] for path, local in paths})
            for i, cotangent in zip(step.wanted, of_inputs, strict=True):
                pending[i] = _add(pending[i], cotangent) if i in pending else cotangent
        return loss, logits, cotangents

    def meta_batch(
        self,
        plans: Sequence[Plan],
        params: Sequence[FlatParams],
        images: jax.Array,
        labels: jax.Array,
        *,
        threads: int = 2,
        **options: Any,
    ) -> list[tuple[jax.Array, jax.Array, dict[Path, jax.Array]]]:
        """`loss_and_grads` of several networks on the same images, side by side in `threads` threads."""
        if threads == 1:
            return [self.loss_and_grads(*pair, images, labels, **options) for pair in zip(plans, params, strict=True)]
        with ThreadPoolExecutor(threads) as pool:
            one = functools.partial(self.loss_and_grads, images=images, labels=labels, **options)
            return list(pool.map(lambda pair: one(*pair), zip(plans, params, strict=True)))

    def warm(
        self,
        plans: Sequence[Plan],
        image_shape: tuple[int, ...],
        *,
        backward: bool = True,
        train: bool = True,
        dtype: Any = jnp.float32,
        threads: int = 1,
    ) -> None:
        """Compiles ahead what the plans need for images of shape (B, H, W, 3); safe in background threads."""
        shape = jax.ShapeDtypeStruct(image_shape, as_dtype(dtype))
        keys = dict.fromkeys(step.key for plan in plans for step in schedule(plan, shape, backward, train, self.device))
        if threads == 1:
            for key in keys:
                self.programs.get(key)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.programs.get, keys))

    def _start(
        self, plan: Plan, images: jax.Array, *, backward: bool, train: bool, dtype: Any, rng: jax.Array | None
    ) -> tuple[tuple[Step, ...], dict[int, jax.Array], jax.Array]:
        shape = jax.ShapeDtypeStruct(images.shape, as_dtype(dtype))
        steps = schedule(plan, shape, backward, train, self.device)
        if rng is None:
            if train and any(step.key.segment.random for step in steps):
                raise ValueError("this network has dropout: training needs rng, a jax.random.key")
            rng = jax.random.key(0)
        return steps, {IMAGES: jnp.asarray(images, shape.dtype)}, rng


def _gather(params: FlatParams, step: Step) -> list[dict[Path, jax.Array]]:
    """Parameters of each layer of a step, by their path in the layer."""
    try:
        return [{local: params[path] for path, local in paths} for paths in step.paths]
    except KeyError as error:
        name = "/".join(error.args[0])
        raise ValueError(f"parameters: {name} is missing; are they of another network?") from None
