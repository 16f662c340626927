"""Logits of networks with predicted parameters, by both protocols of batch normalisation."""

import copy
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
from flax import traverse_util

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.evaluation.bn_statistics import STATISTICS, mean_over_batches, with_batch_statistics
from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.tracing.frontends import evaluation_flags
from ghn_jax.networks import network_plan
from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.plan import IMAGES
from ghn_jax.networks.programs import compiler_options
from ghn_jax.networks.runner import Runner

FlatParams = Mapping[Path, jax.Array]


class Network(Protocol):
    """A network and its parameters."""

    def logits(self, images: jax.Array) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3), normalised by the statistics of this batch."""
        ...

    def statistics(self, batches: Iterable[jax.Array]) -> Any:
        """Mean over batches of images of the mean and the unbiased variance at every BN layer.

        Raises:
          ValueError: without batches.
        """
        ...

    def logits_given(self, images: jax.Array, statistics: Any) -> jax.Array:
        """Logits (B, K) of images (B, H, W, 3), normalised by `statistics`: no image depends on another."""
        ...


def network_of(model: NetworkArgs | nn.Module, params: FlatParams, runner: Runner) -> Network:
    """The network of some arguments, or a model that has no cells, with its parameters by path."""
    return LayeredNetwork(model, params, runner) if isinstance(model, NetworkArgs) else WholeModel(model, params)


class LayeredNetwork:
    """A network of cells, run layer by layer so that programs are shared between networks."""

    def __init__(self, args: NetworkArgs, params: FlatParams, runner: Runner) -> None:
        self._args, self._params, self._runner = args, params, runner

    def logits(self, images: jax.Array) -> jax.Array:
        """As `Network.logits`."""
        return self._runner.forward(network_plan(self._args), self._params, images)

    def statistics(self, batches: Iterable[jax.Array]) -> Any:
        """As `Network.statistics`, by path."""
        return mean_over_batches(self._run(images, None)[1] for images in batches)

    def logits_given(self, images: jax.Array, statistics: Any) -> jax.Array:
        """As `Network.logits_given`."""
        return self._run(images, statistics)[0]

    def _run(self, images: jax.Array, given: FlatParams | None) -> tuple[jax.Array, dict[Path, jax.Array]]:
        """Logits, and the statistics of this batch; given statistics are used, else those of the batch."""
        plan = network_plan(self._args, momentum=0.0)  # of no effect, but with one layers keep statistics
        values, found = {IMAGES: images}, {}
        for call in plan.calls:
            inputs = tuple(values[i] for i in call.inputs)
            leaves = _leaves(call.layer, tuple(x.shape for x in inputs))
            sources = {"params": self._params, STATISTICS: given or {}}
            flat = {
                path: sources[path[0]][(*call.prefix, *path[1:])]
                for path in leaves
                if path[0] == "params" or given is not None
            }
            program = _layer(call.layer, given is None)
            output, statistics = program(traverse_util.unflatten_dict(flat), inputs)
            values[call.output] = output
            own: dict[Path, Any] = traverse_util.flatten_dict(statistics)
            found.update({(*call.prefix, *name): leaf for name, leaf in own.items()})
        return values[plan.output], found


@functools.lru_cache(maxsize=512)
def _layer(layer: nn.Module, estimate: bool) -> Any:
    """Compiled call of one layer: (variables, inputs) -> (output, statistics of this batch or none).

    A layer that is dropped gives back its memory mappings, of which Linux allows a process 65,530.
    """
    platform = jax.default_backend()

    def run(variables: Any, inputs: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        with compiling_for(platform):
            if estimate:
                return with_batch_statistics(layer, variables, *inputs, train=False)
            return layer.apply(variables, *inputs, train=False), {}

    return jax.jit(run, compiler_options=compiler_options(layer, platform))


@functools.lru_cache(maxsize=4096)
def _leaves(layer: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> tuple[Path, ...]:
    """Paths of a layer's variables for inputs of these shapes, the collection first."""
    inputs = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    variables: Any = jax.eval_shape(lambda *xs: layer.init(jax.random.key(0), *xs), *inputs)
    return tuple(traverse_util.flatten_dict(variables))


class WholeModel:
    """A linen model that is no network of cells, compiled in one piece."""

    def __init__(self, model: nn.Module, params: FlatParams) -> None:
        flags: dict[str, Any] = evaluation_flags(type(model).__call__)
        self._params: Any = traverse_util.unflatten_dict(dict(params))
        self._by_batch = jax.jit(
            lambda params, images: with_batch_statistics(model, {"params": params}, images, **flags)
        )
        self._given = jax.jit(
            lambda params, statistics, images: model.apply({"params": params, STATISTICS: statistics}, images, **flags)
        )

    def with_params(self, params: FlatParams) -> "WholeModel":
        """The same model, compiled once, with other parameters."""
        other = copy.copy(self)
        other._params = traverse_util.unflatten_dict(dict(params))
        return other

    def logits(self, images: jax.Array) -> jax.Array:
        """As `Network.logits`."""
        return self._by_batch(self._params, images)[0]

    def statistics(self, batches: Iterable[jax.Array]) -> Any:
        """As `Network.statistics`."""
        return mean_over_batches(self._by_batch(self._params, images)[1] for images in batches)

    def logits_given(self, images: jax.Array, statistics: Any) -> jax.Array:
        """As `Network.logits_given`."""
        return self._given(self._params, statistics, images)
