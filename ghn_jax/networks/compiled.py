"""Compiled programs of segments, shared by all networks."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.segments import Segment, signature

Device: TypeAlias = Any
"""A jax.Device, which type checkers take for a variable."""

Shapes = tuple[jax.ShapeDtypeStruct, ...]


@dataclasses.dataclass(frozen=True)
class ProgramKey:
    """What a compiled segment depends on.

    Attributes:
      segment: its layers.
      inputs: shapes and types of its inputs.
      wanted: for each input, whether its cotangent is wanted; () for a forward pass alone.
      train: whether dropout is active.
      device: where it runs; None for the default device.
    """

    segment: Segment
    inputs: Shapes
    wanted: tuple[bool, ...]
    train: bool
    device: Device | None = None


@dataclasses.dataclass(frozen=True)
class Program:
    """Compiled forms of one segment.

    Attributes:
      forward: (params, inputs, key) to outputs, with residuals if there is a `backward`.
      backward: (residuals, output cotangents) to (params' cotangents, wanted inputs' cotangents).
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """Work of a `Programs` so far.

    Attributes:
      compiled: programs compiled (a forward and its backward count once).
      seconds: time that took, summed over threads.
      requests: look-ups.
      held: programs held now.
      evicted: programs dropped because of the bound.
    """

    compiled: int
    seconds: float
    requests: int
    held: int
    evicted: int


class Programs:
    """Cache of compiled segments, safe to use from several threads; the least recently used go first.

    Args:
      capacity: how many programs are held at most.
    """

    def __init__(self, capacity: int = 4096) -> None:
        if capacity < 1:
            raise ValueError(f"compiled layers: capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self._lock = threading.Lock()
        self._held: collections.OrderedDict[ProgramKey, Program] = collections.OrderedDict()
        self._under_way: dict[ProgramKey, threading.Event] = {}
        self._compiled = self._requests = self._evicted = 0
        self._seconds = 0.0

    def get(self, key: ProgramKey) -> Program:
        """The program of `key`, compiled now unless held or under way in another thread."""
        while True:
            with self._lock:
                self._requests += 1
                if key in self._held:
                    self._held.move_to_end(key)
                    return self._held[key]
                waiting = self._under_way.get(key)
                if waiting is None:
                    self._under_way[key] = threading.Event()
            if waiting is None:
                return self._compile(key)
            waiting.wait()

    def _compile(self, key: ProgramKey) -> Program:
        start = time.perf_counter()
        try:
            program = compile_segment(key)
            with self._lock:
                self._held[key] = program
                self._compiled += 1
                self._seconds += time.perf_counter() - start
                while len(self._held) > self.capacity:
                    self._held.popitem(last=False)
                    self._evicted += 1
        finally:
            with self._lock:
                self._under_way.pop(key).set()
        return program

    def report(self) -> CompileReport:
        """What was compiled so far."""
        with self._lock:
            return CompileReport(self._compiled, self._seconds, self._requests, len(self._held), self._evicted)


def compile_segment(key: ProgramKey) -> Program:
    """Compiles the forward pass of a segment and, if cotangents are wanted, its backward pass."""
    shapes = signature(key.segment, key.inputs)
    sharding = None if key.device is None else jax.sharding.SingleDeviceSharding(key.device)

    def placed(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    params = placed([dict(own) for own in shapes.params])
    inputs = placed(key.inputs)
    random = key.train and key.segment.random
    rng = placed(jax.eval_shape(lambda: jax.random.key(0))) if random else None

    def run(params: Any, inputs: Any, rng: Any) -> Any:
        with compiling_for(jax.default_backend() if key.device is None else key.device.platform):
            return key.segment.run(params, inputs, rng, key.train)

    if not key.wanted:
        return Program(jax.jit(run).lower(params, inputs, rng).compile(), None)

    def forward(params: Any, inputs: Any, rng: Any) -> Any:
        def of_wanted(params: Any, wanted: Any) -> Any:
            given = iter(wanted)
            merged = [next(given) if want else x for want, x in zip(key.wanted, inputs, strict=True)]
            return run(params, merged, rng)

        wanted = [x for want, x in zip(key.wanted, inputs, strict=True) if want]
        return jax.vjp(of_wanted, params, wanted)

    lowered = jax.jit(forward).lower(params, inputs, rng)
    compiled = lowered.compile()
    outputs, residuals = lowered.out_info
    backward = jax.jit(lambda vjp, cotangents: vjp(cotangents)).lower(placed(residuals), placed(outputs))
    return Program(compiled, backward.compile())


def as_dtype(dtype: Any) -> Any:
    """Canonical dtype of a computation: float32, bfloat16, or float64 where JAX has it enabled."""
    canonical = jnp.dtype(dtype)
    if canonical not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float64)):
        raise ValueError(f"dtype of a target network must be float32, bfloat16 or float64, got {canonical}")
    if jax.dtypes.canonicalize_dtype(canonical) != canonical:
        raise ValueError("dtype of a target network is float64, but JAX has it disabled: set jax_enable_x64")
    return canonical
