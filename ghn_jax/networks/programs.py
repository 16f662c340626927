"""A layer as two compiled programs: forward with residuals, backward from residuals."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from ghn_jax.deepnets.recipes import TransformerBlock
from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.lean import LeanFunction, Shapes, trace_lean
from ghn_jax.networks.recipe_layer import RecipeLayer
from ghn_jax.xla_options import ONE_OBJECT, known_options

Device: TypeAlias = Any
"""A jax.Device, which type checkers take for a variable."""

Arrays = list[jax.Array]


@dataclasses.dataclass(frozen=True)
class ProgramKey:
    """What the programs of a layer depend on.

    Attributes:
      layer: the module.
      inputs: shapes and types of its inputs.
      wanted: for each input, whether its cotangent is wanted; () for a forward pass alone.
      random: whether dropout is active, so that a key is needed.
      device: where it runs; None for the default device.
    """

    layer: nn.Module
    inputs: Shapes
    wanted: tuple[bool, ...]
    random: bool = False
    device: Device | None = None

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.layer, self.inputs, self.wanted, self.random, self.device))

    def __hash__(self) -> int:
        return self._hash


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a layer needs and gives for inputs of given shapes.

    Attributes:
      params: path in the layer and shape of each parameter.
      output: shape of the output.
    """

    params: tuple[tuple[Path, jax.ShapeDtypeStruct], ...]
    output: jax.ShapeDtypeStruct


@functools.lru_cache(maxsize=16384)
def signature(layer: nn.Module, inputs: Shapes) -> Signature:
    """Shapes of a layer's parameters and output, for inputs of these shapes."""

    def init(key: jax.Array, *xs: jax.Array) -> Any:
        return layer.init_with_output(key, *xs)

    output, variables = jax.eval_shape(init, jax.ShapeDtypeStruct((2,), jnp.uint32), *inputs)
    flat = traverse_util.flatten_dict(variables.get("params", {}))
    params = ((path, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)) for path, leaf in sorted(flat.items()))
    return Signature(tuple(params), output)


@dataclasses.dataclass(frozen=True, eq=False)
class TracedProgram:
    """A layer traced for one platform; attributes as in `Program`, not yet compiled."""

    forward: LeanFunction
    backward: LeanFunction | None


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Compiled forms of one layer.

    Attributes:
      forward: (*params, *inputs[, key]) to [output, *residuals]; the params in the order of the `Signature`.
      backward: (*residuals, output's cotangent) to [*params' cotangents, *wanted inputs' cotangents]; None for a
        forward pass alone.
      unshared: for each wanted input, whether no other array is its cotangent, which may then be overwritten.
    """

    forward: Callable[..., Arrays]
    backward: Callable[..., Arrays] | None
    unshared: tuple[bool, ...]


def trace_program(key: ProgramKey, platform: str) -> TracedProgram:
    """Traces a layer in the formulations of `platform` ("cpu", "gpu", "tpu")."""
    sharding = None if key.device is None else jax.sharding.SingleDeviceSharding(key.device)

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    named = signature(key.layer, key.inputs).params
    params, inputs = [placed(leaf) for _, leaf in named], [placed(leaf) for leaf in key.inputs]
    rng = placed(jax.eval_shape(lambda: jax.random.key(0))) if key.random else None

    def run(params: Arrays, inputs: Arrays, rng: jax.Array | None) -> jax.Array:
        own = {path: leaf for (path, _), leaf in zip(named, params, strict=True)}
        rngs = None if rng is None else {"dropout": rng}
        with compiling_for(platform):
            return cast(
                jax.Array,
                key.layer.apply({"params": traverse_util.unflatten_dict(own)}, *inputs, train=key.random, rngs=rngs),
            )

    if not key.wanted:
        return TracedProgram(trace_lean(run, params, inputs, rng, device=key.device)[0], None)

    def forward(params: Arrays, inputs: Arrays, rng: jax.Array | None) -> tuple[jax.Array, Callable[..., Any]]:
        def of_wanted(params: Arrays, wanted: Arrays) -> jax.Array:
            given = iter(wanted)
            return run(params, [next(given) if want else x for want, x in zip(key.wanted, inputs, strict=True)], rng)

        return jax.vjp(of_wanted, params, [x for want, x in zip(key.wanted, inputs, strict=True) if want])

    whole, tree = trace_lean(forward, params, inputs, rng, device=key.device)
    output, vjp = jax.tree.unflatten(tree, whole.outputs)
    # A residual that is listed twice is kept once.
    kept = list(dict.fromkeys(whole.places[1:]))
    structure = jax.tree.structure(vjp)
    lean = whole.select([0, *(whole.places.index(place, 1) for place in kept)])

    def backward(kept_residuals: Arrays, cotangent: jax.Array) -> Any:
        return structure.unflatten(kept_residuals[kept.index(place)] for place in whole.places[1:])(cotangent)

    return TracedProgram(
        lean, trace_lean(backward, [placed(leaf) for leaf in lean.outputs[1:]], placed(output), device=key.device)[0]
    )


def compile_program(key: ProgramKey) -> Program:
    """Compiles the forward pass of a layer and, if cotangents are wanted, its backward pass."""
    platform = jax.default_backend() if key.device is None else key.device.platform
    options = compiler_options(key.layer, platform)
    traced = trace_program(key, platform)
    forward = traced.forward.compile(options)
    if traced.backward is None:
        return Program(forward, None, ())
    places = traced.backward.places
    of_inputs = places[len(places) - sum(key.wanted) :]
    unshared = tuple(place >= traced.backward.given and places.count(place) == 1 for place in of_inputs)
    return Program(forward, traced.backward.compile(options), unshared)


def compiler_options(layer: nn.Module, platform: str) -> dict[str, Any] | None:
    """Options with which a layer takes few memory mappings on CPU.

    By default XLA makes an object of each fusion, and each object takes three mappings: 52 a layer, forward and
    backward, on average over training networks. In one object they take 16, compile a little faster and run as fast,
    but for the exponentials of attention, which need XLA's newer fusions (1.5 times as fast).
    """
    attends = isinstance(layer, RecipeLayer) and isinstance(layer.recipe, TransformerBlock)
    if platform != "cpu" or attends:
        return None
    return known_options(**ONE_OBJECT)


def as_dtype(dtype: Any) -> Any:
    """Canonical dtype of a computation: float32, bfloat16, or float64 where JAX has it enabled."""
    try:
        canonical = jnp.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype of a target network must be float32, bfloat16 or float64, got {dtype!r}") from None
    if canonical not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float64)):
        raise ValueError(f"dtype of a target network must be float32, bfloat16 or float64, got {canonical}")
    if jax.dtypes.canonicalize_dtype(canonical) != canonical:
        raise ValueError("dtype of a target network is float64, but JAX has it disabled: set jax_enable_x64")
    return canonical
