"""Models of several libraries as one thing: a function of parameters and other state, on abstract values."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from ghn_jax.graphs.param_spec import Path

Result = TypeVar("Result")

EVALUATION_FLAGS: Mapping[str, bool] = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}
"""Arguments by which models are told that they do not train, and the value that says so."""


@dataclasses.dataclass(frozen=True)
class Traceable:
    """A model as the tracer sees it.

    Attributes:
      apply: ``(params, state, images) -> output``.
      params, state: pytrees of `jax.ShapeDtypeStruct`.
    """

    apply: Callable[[Any, Any, Any], Any]
    params: Any
    state: Any


def evaluation_flags(function: Callable[..., Any]) -> dict[str, bool]:
    """Those of the known train or evaluation arguments that a function takes, set for evaluation."""
    taken = inspect.signature(function).parameters
    return {flag: value for flag, value in EVALUATION_FLAGS.items() if flag in taken}


def abstractly(trace: Callable[[], Result]) -> Result:
    """Runs a tracing function; once more with constants computed on the spot if the model reads one of them.

    Some models build tables such as stochastic-depth rates with jax.numpy and read them as Python numbers, which fails
    under every transformation of JAX unless constants are evaluated eagerly.
    """
    try:
        return trace()
    except jax.errors.ConcretizationTypeError:
        with jax.ensure_compile_time_eval():
            return trace()


def from_linen(module: Any, images: jax.ShapeDtypeStruct, call_kwargs: Mapping[str, Any]) -> Traceable:
    """A Flax linen module: initialised abstractly, every collection but `params` is state."""
    import flax.linen as nn
    from flax.core import scope

    kwargs = {**evaluation_flags(type(module).__call__), **call_kwargs}
    keys = {name: abstract_key() for name in ("params", "dropout")}
    variables = abstractly(lambda: jax.eval_shape(lambda rngs, x: module.init(rngs, x, **kwargs), keys, images))
    variables = nn.meta.unbox(variables)
    params = variables.pop("params", {})

    def apply(params: Any, state: Any, x: Any) -> Any:
        rngs = {"dropout": jax.random.key(0)}
        output, _ = module.apply({"params": params, **state}, x, **kwargs, rngs=rngs, mutable=scope.DenyList("params"))
        return output

    return Traceable(apply, params, variables)


def from_nnx(module: Any, call_kwargs: Mapping[str, Any]) -> Traceable:
    """A Flax nnx module, concrete or abstract (`nnx.eval_shape`)."""
    from flax import nnx

    graph, params, state = nnx.split(module, nnx.Param, ...)
    kwargs = {**evaluation_flags(type(module).__call__), **call_kwargs}

    def apply(params: Any, state: Any, x: Any) -> Any:
        model = nnx.merge(graph, params, state)
        model.eval()
        return model(x, **kwargs)

    return Traceable(apply, abstract(nnx.to_pure_dict(params)), abstract(state))


def from_function(function: Callable[..., Any], params: Any, call_kwargs: Mapping[str, Any]) -> Traceable:
    """A function ``(params, images) -> logits``."""

    def apply(params: Any, state: Any, x: Any) -> Any:
        return function(params, x, **call_kwargs)

    return Traceable(apply, abstract(params), ())


def as_traceable(model: Any, images: jax.ShapeDtypeStruct, params: Any, call_kwargs: Mapping[str, Any]) -> Traceable:
    """Any supported model.

    Raises:
      ValueError: if the model is none, or a function comes without `params`.
    """
    if isinstance(model, type):
        raise ValueError(f"cannot trace the class {model.__name__}: give a model, such as {model.__name__}(..)")
    # Nobody holds a module of a library that is not imported yet.
    linen, nnx = sys.modules.get("flax.linen"), sys.modules.get("flax.nnx")
    if linen is not None and isinstance(model, linen.Module):
        return from_linen(model, images, call_kwargs)
    if nnx is not None and isinstance(model, nnx.Module):
        return from_nnx(model, call_kwargs)
    if not callable(model):
        raise ValueError(f"cannot trace a {type(model).__name__}: give a Flax module or a function (params, images)")
    if params is None:
        raise ValueError("a function (params, images) can only be traced with `params`, a pytree of its parameters")
    return from_function(model, params, call_kwargs)


def abstract(tree: Any) -> Any:
    """Shapes and types of a pytree's arrays; raises ValueError for a leaf that is none."""

    def of_leaf(keys: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise ValueError(f"the parameter {'/'.join(path_of(keys))!r} must be an array, got a {type(leaf).__name__}")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def abstract_key() -> Any:
    """Shape and type of a random key."""
    return jax.eval_shape(lambda: jax.random.key(0))


def path_of(keys: tuple[Any, ...]) -> Path:
    """Path of a leaf as text, from a pytree's key path."""
    names = []
    for key in keys:
        for attribute in ("key", "name", "idx"):
            if hasattr(key, attribute):
                names.append(str(getattr(key, attribute)))
                break
    return tuple(names)
