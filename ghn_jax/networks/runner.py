"""Networks as chains of compiled layers: forward, and forward + backward, without a program of their own."""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ghn_jax.fields import WORKERS, Range, check_number
from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks.plan import IMAGES, Plan
from ghn_jax.networks.program_cache import CompileReport, Programs, shared_programs
from ghn_jax.networks.programs import Device, Program, as_dtype
from ghn_jax.networks.schedule import Step, schedule

FlatParams = Mapping[Path, jax.Array]
Values = dict[int, jax.Array]
Pending = tuple[Step, Program, list[jax.Array]]
"""A step that ran, its programs and the residuals of its backward pass."""
Cotangent = tuple[jax.Array, bool]
"""An array, and whether it may be overwritten because nothing else refers to it."""


class Runner:
    """Runs any network layer by layer; layers are compiled once per shape and shared by all networks.

    Args:
      programs: the compiled layers; None for those that all runners of the process share.
      device: where networks run; None for JAX's default device.
    """

    def __init__(self, programs: Programs | None = None, device: Device | None = None) -> None:
        self.programs = programs or shared_programs()
        self.device = device

    def report(self) -> CompileReport:
        """What was compiled so far, by all runners that share these programs."""
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
        """Logits (B, K) of images (B, H, W, 3).

        Raises:
          ValueError: for parameters that are missing or of another shape, or dropout without `rng`.
        """
        steps, values, rng = self._start(plan, images, backward=False, train=train, dtype=dtype, rng=rng)
        for place, step in enumerate(steps):
            self._call(step, params, values, jax.random.fold_in(rng, place) if step.key.random else None)
        return values[plan.output]

    def loss_and_grads(
        self,
        plan: Plan,
        params: FlatParams,
        images: jax.Array,
        labels: jax.Array,
        *,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.4,
        rng: jax.Array | None = None,
        train: bool = True,
        dtype: Any = jnp.float32,
    ) -> tuple[jax.Array, jax.Array, dict[Path, jax.Array]]:
        """Mean cross-entropy, logits (B, K), and the loss's gradient for every parameter of the plan.

        A plan with an auxiliary head adds `auxiliary_weight` (that of DARTS by default) times the mean cross-entropy of
        its logits to the loss; the logits returned are those of the network's own classifier.

        Raises:
          ValueError: as `forward`, and for labels that are no classes of the network or numbers out of their range.
        """
        check_number("label_smoothing", label_smoothing, Range(0, 1, whole=False, below=True))
        check_number("auxiliary_weight", auxiliary_weight, Range(0, whole=False))
        steps, values, rng = self._start(plan, images, backward=True, train=train, dtype=dtype, rng=rng)
        pending = self._forward(steps, params, values, rng)
        logits = values.pop(plan.output)
        _check_labels(labels, *logits.shape)
        loss, gradient = _loss(logits, labels, label_smoothing)
        cotangents = {plan.output: (gradient, True)}
        if plan.auxiliary is not None:
            added, gradient = _loss(values.pop(plan.auxiliary), labels, label_smoothing, auxiliary_weight)
            loss = loss + added
            cotangents[plan.auxiliary] = (gradient, True)
        return loss, logits, _backward(pending, cotangents)

    def sensitivities(
        self, plan: Plan, params: FlatParams, images: jax.Array, *, dtype: Any = jnp.float32
    ) -> tuple[jax.Array, jax.Array, dict[Path, jax.Array]]:
        """Logits (B, K) without dropout, and the gradient of their sum for images (B, H, W, 3) and every parameter.

        Raises:
          ValueError: as `forward`.
        """
        steps, values, rng = self._start(
            plan, images, backward=True, train=False, dtype=dtype, rng=None, of_images=True
        )
        pending = self._forward(steps, params, values, rng)
        logits = values[plan.output]
        cotangents: dict[int, Cotangent] = {plan.output: (jnp.ones_like(logits), True)}
        gradients = _backward(pending, cotangents)
        return logits, cotangents[IMAGES][0], gradients

    def warm(
        self,
        plans: Sequence[Plan],
        image_shape: tuple[int, ...],
        *,
        backward: bool = True,
        train: bool = True,
        dtype: Any = jnp.float32,
        threads: int = 1,
        tell: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compiles ahead what the plans need for images of shape (B, H, W, 3); safe in background threads.

        `tell` is called before each missing layer: how many of those that were missing are compiled, and how many there
        are.
        """
        check_number("threads", threads, Range(1, WORKERS.high))
        shape = jax.ShapeDtypeStruct(_image_shape(image_shape), as_dtype(dtype))
        keys = dict.fromkeys(step.key for plan in plans for step in schedule(plan, shape, backward, train, self.device))
        missing = dict.fromkeys(self.programs.missing(keys))
        for key in keys:
            if key not in missing:
                self.programs.get(key)  # used now: it is not dropped next
        if threads == 1:
            for done, key in enumerate(missing):
                if tell is not None:
                    tell(done, len(missing))
                self.programs.get(key)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.programs.get, missing))

    def _start(
        self,
        plan: Plan,
        images: jax.Array,
        *,
        backward: bool,
        train: bool,
        dtype: Any,
        rng: jax.Array | None,
        of_images: bool = False,
    ) -> tuple[tuple[Step, ...], Values, jax.Array]:
        shape = jax.ShapeDtypeStruct(_image_shape(jnp.shape(images)), as_dtype(dtype))
        steps = schedule(plan, shape, backward, train, self.device, of_images=of_images)
        if rng is None:
            if any(step.key.random for step in steps):
                raise ValueError("this network has dropout: training needs rng, a jax.random.key")
            rng = jax.random.key(0)
        return steps, {IMAGES: jnp.asarray(images, shape.dtype)}, rng

    def _forward(self, steps: Sequence[Step], params: FlatParams, values: Values, rng: jax.Array) -> list[Pending]:
        """Runs all steps; what their backward passes need, in order."""
        pending: list[Pending] = []
        for place, step in enumerate(steps):
            key = jax.random.fold_in(rng, place) if step.key.random else None
            pending.append((step, *self._call(step, params, values, key)))
        return pending

    def _call(
        self, step: Step, params: FlatParams, values: Values, key: jax.Array | None
    ) -> tuple[Program, list[jax.Array]]:
        """Puts the output of a step among the values and takes out what is not used again; its residuals."""
        program = self.programs.get(step.key)
        arguments = [*_gather(params, step), *(values[i] for i in step.inputs)]
        values[step.output], *residuals = program.forward(*arguments, *(() if key is None else (key,)))
        for i in step.last:
            del values[i]
        return program, residuals


def _backward(pending: list[Pending], cotangents: dict[int, Cotangent]) -> dict[Path, jax.Array]:
    """Gradients of all parameters; empties `pending`, and leaves the cotangents of what no step gives."""
    gradients: dict[Path, jax.Array] = {}
    while pending:
        step, program, residuals = pending.pop()
        backward = cast(Callable[..., list[jax.Array]], program.backward)  # wanted when it was compiled
        found = backward(*residuals, cotangents.pop(step.output)[0])
        del residuals
        gradients.update((path, own) for (path, _), own in zip(step.params, found, strict=False))
        of_inputs = zip(step.wanted, found[len(step.params) :], program.unshared, strict=True)
        for i, cotangent, unshared in of_inputs:
            new = (cotangent, unshared)
            cotangents[i] = _sum(cotangents[i], new) if i in cotangents else new
    return gradients


def _gather(params: FlatParams, step: Step) -> list[jax.Array]:
    """Parameters of a step, in order."""
    found = []
    for path, wanted in step.params:
        param = params.get(path)
        if param is None or param.shape != wanted.shape or param.dtype != wanted.dtype:
            raise ValueError(f"parameters: {'/'.join(path)} {_problem(param, wanted)}")
        found.append(param)
    return found


def _problem(param: jax.Array | None, wanted: jax.ShapeDtypeStruct) -> str:
    """What is wrong with a parameter."""
    if param is None:
        return "is missing; are they of another network?"
    if param.shape != wanted.shape:
        return f"has shape {param.shape}, the network needs {wanted.shape}; are they of another network?"
    return f"is {param.dtype}, the network needs {wanted.dtype}; `dtype` is what networks compute in, parameters stay"


def _image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"images must be (B, H, W, 3), none of them empty, got {tuple(shape)}")
    return tuple(shape)


def _check_labels(labels: jax.Array, images: int, classes: int) -> None:
    """Raises ValueError unless there is one class for each image; a loss would take no notice of others."""
    found = np.asarray(labels)
    if found.shape != (images,) or found.dtype.kind not in "iu":
        raise ValueError(f"labels must be {images} whole numbers, one an image, got {found.dtype} {found.shape}")
    outside = found[(found < 0) | (found >= classes)]
    if len(outside):
        raise ValueError(f"labels must be from 0 to {classes - 1}, for {classes} classes, got {outside[0]}")


@functools.partial(jax.jit, static_argnums=(2, 3))
def _loss(
    logits: jax.Array, labels: jax.Array, label_smoothing: float, weight: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy times a weight, and its gradient for logits (B, K)."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return jax.value_and_grad(lambda logits: weight * optax.softmax_cross_entropy(logits, targets).mean())(logits)


def _sum(one: Cotangent, other: Cotangent) -> Cotangent:
    if one[1]:
        return _add_into(one[0], other[0]), True
    return (_add_into(other[0], one[0]) if other[1] else _add(one[0], other[0])), True


@jax.jit
def _add(x: jax.Array, y: jax.Array) -> jax.Array:
    return x + y


@functools.partial(jax.jit, donate_argnums=0)
def _add_into(x: jax.Array, y: jax.Array) -> jax.Array:
    return x + y
