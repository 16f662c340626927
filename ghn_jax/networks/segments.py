"""Pieces of a plan that are compiled as one program each."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks.plan import Plan


@dataclasses.dataclass(frozen=True)
class LocalCall:
    """A layer inside a segment; values are numbered from the segment's first input."""

    layer: nn.Module
    inputs: tuple[int, ...]
    output: int


@dataclasses.dataclass(frozen=True)
class Segment:
    """Some layer calls without their place in a network, so that equal ones share a program.

    Attributes:
      calls: the layers.
      num_inputs: values that come from outside, numbered 0...
      outputs: values that are used outside.
    """

    calls: tuple[LocalCall, ...]
    num_inputs: int
    outputs: tuple[int, ...]

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.calls, self.num_inputs, self.outputs))

    def __hash__(self) -> int:
        return self._hash

    @property
    def random(self) -> bool:
        """Whether training needs a key."""
        return any(getattr(call.layer, "random", False) for call in self.calls)

    def run(
        self, params: Sequence[dict[Path, jax.Array]], inputs: Sequence[jax.Array], key: jax.Array | None, train: bool
    ) -> tuple[jax.Array, ...]:
        """Outputs from inputs and, for each call, its parameters by their path in the layer."""
        values = dict(enumerate(inputs))
        rngs = None if key is None else {"dropout": key}
        for call, own in zip(self.calls, params, strict=True):
            tree = {"params": traverse_util.unflatten_dict(own)}
            out = call.layer.apply(tree, *(values[i] for i in call.inputs), train=train, rngs=rngs)
            values[call.output] = cast(jax.Array, out)
        return tuple(values[i] for i in self.outputs)


@dataclasses.dataclass(frozen=True)
class SegmentCall:
    """A segment at its place in a network: the parameters' prefixes and the ids of its values in the plan."""

    segment: Segment
    prefixes: tuple[Path, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str


def split(plan: Plan) -> tuple[SegmentCall, ...]:
    """One segment for each call."""
    calls = []
    for call in plan.calls:
        inputs = tuple(dict.fromkeys(call.inputs))
        local = LocalCall(call.layer, tuple(inputs.index(i) for i in call.inputs), len(inputs))
        segment = Segment((local,), len(inputs), (len(inputs),))
        calls.append(SegmentCall(segment, (call.prefix,), inputs, (call.output,), call.kind))
    return tuple(calls)


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a segment needs and gives for inputs of given shapes: one set of parameter shapes by path for each call."""

    params: tuple[tuple[tuple[Path, jax.ShapeDtypeStruct], ...], ...]
    outputs: tuple[jax.ShapeDtypeStruct, ...]


@functools.lru_cache(maxsize=16384)
def _layer_signature(
    layer: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]
) -> tuple[tuple[tuple[Path, jax.ShapeDtypeStruct], ...], jax.ShapeDtypeStruct]:
    """Parameters by path in the layer, and the output, for inputs of these shapes."""

    def init(key: jax.Array, *xs: jax.Array) -> Any:
        return layer.init_with_output(key, *xs)

    out, variables = jax.eval_shape(init, jax.ShapeDtypeStruct((2,), jnp.uint32), *inputs)
    flat = traverse_util.flatten_dict(variables.get("params", {}))
    return tuple((path, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)) for path, leaf in sorted(flat.items())), out


@functools.lru_cache(maxsize=16384)
def signature(segment: Segment, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Signature:
    """Shapes of a segment's parameters and outputs."""
    values = dict(enumerate(inputs))
    params = []
    for call in segment.calls:
        own, values[call.output] = _layer_signature(call.layer, tuple(values[i] for i in call.inputs))
        params.append(own)
    return Signature(tuple(params), tuple(values[i] for i in segment.outputs))
