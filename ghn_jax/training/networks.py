"""Networks as they are trained: loss, gradient and what training keeps beside the weights, for any kind of model."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from flax.core import scope

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.evaluation.forward import Network, WholeModel, network_of
from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.tracing.frontends import evaluation_flags
from ghn_jax.images import Batch
from ghn_jax.networks import network_plan
from ghn_jax.networks.plan import Plan
from ghn_jax.networks.runner import Runner
from ghn_jax.networks.schedule import schedule

Flat = dict[Path, Any]
"""Leaves of a nested dictionary by path."""


def flat(tree: Any) -> Flat:
    """A nested dictionary's leaves by path."""
    leaves: Any = traverse_util.flatten_dict(tree)
    return leaves


class Gradients(NamedTuple):
    """What a batch tells.

    Attributes:
      loss: mean over the images, ().
      correct: number of images classified correctly, ().
      gradients: of the loss, by path.
      statistics: that the model keeps beside its weights, after the batch.
    """

    loss: jax.Array
    correct: jax.Array
    gradients: Flat
    statistics: Any


class Trainable(Protocol):
    """A network that can be trained."""

    @property
    def statistics(self) -> Any:
        """What training keeps beside the weights, before the first update; a pytree."""
        ...

    def new_params(self, key: jax.Array) -> Flat:
        """Weights that the model itself begins with where a start has none, such as those of an auxiliary head."""
        ...

    def gradients(self, params: Flat, statistics: Any, batch: Batch, rng: jax.Array) -> Gradients:
        """Loss and gradient of a batch: images (B, H, W, 3) and labels (B,)."""
        ...

    def network(self, params: Flat) -> Network:
        """The network, to be evaluated by statistics of the batch or by given ones."""
        ...


@dataclasses.dataclass(frozen=True)
class Regularisation:
    """What makes training harder, not the loss of a test.

    Attributes:
      label_smoothing: of the cross-entropy.
      drop_path: probability of dropping an op's output for one image.
      auxiliary_weight: of the loss of an auxiliary head; 0 for none.
    """

    label_smoothing: float = 0.0
    drop_path: float = 0.0
    auxiliary_weight: float = 0.0


def trainable(
    model: NetworkArgs | nn.Module, regularisation: Regularisation, runner: Runner, image_size: int
) -> Trainable:
    """The network of some arguments, run layer by layer, or a linen model, compiled whole.

    Raises:
      ValueError: for drop-path or an auxiliary head of a model that is no network of DeepNets-1M.
    """
    if isinstance(model, NetworkArgs):
        return LayeredTrainable(model, regularisation, runner)
    if regularisation.drop_path or regularisation.auxiliary_weight:
        raise ValueError("drop_path and auxiliary heads are for networks of DeepNets-1M: this model has its own")
    return WholeTrainable(model, regularisation.label_smoothing, image_size)


def gradient_on(own: Trainable, batch: Batch) -> Callable[[Flat], tuple[jax.Array, Flat]]:
    """Weights -> loss () and gradient of a batch, with the statistics that training begins with."""

    def gradient(params: Flat) -> tuple[jax.Array, Flat]:
        found = own.gradients(params, own.statistics, batch, jax.random.key(0))
        return found.loss, found.gradients

    return gradient


class LayeredTrainable:
    """A network of DeepNets-1M; batch normalisation uses the statistics of the batch."""

    statistics: Any = ()

    def __init__(self, args: NetworkArgs, regularisation: Regularisation, runner: Runner) -> None:
        self._args, self._runner, self._regularisation = args, runner, regularisation

    @property
    def plan(self) -> Plan:
        """The calls of training."""
        own = self._regularisation
        return network_plan(self._args, drop_path=own.drop_path, auxiliary=own.auxiliary_weight > 0)

    def new_params(self, key: jax.Array) -> Flat:
        """Those of the auxiliary head, by its layers' own rules."""
        if not self._regularisation.auxiliary_weight:
            return {}
        known = {(call.prefix, call.kind) for call in network_plan(self._args).calls}
        found: Flat = {}
        size = self._args.image_size
        steps = schedule(self.plan, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), False, False, None)
        for number, (call, step) in enumerate(zip(self.plan.calls, steps, strict=True)):
            if (call.prefix, call.kind) not in known and call.kind != "drop_path":
                inputs = [jnp.zeros(x.shape, x.dtype) for x in step.key.inputs]
                variables: Any = call.layer.init(jax.random.fold_in(key, number), *inputs)
                found.update({(*call.prefix, *path): x for path, x in flat(variables.get("params", {})).items()})
        return found

    def gradients(self, params: Flat, statistics: Any, batch: Batch, rng: jax.Array) -> Gradients:
        """As `Trainable.gradients`."""
        own = self._regularisation
        loss, logits, gradients = self._runner.loss_and_grads(
            self.plan,
            params,
            *batch,
            label_smoothing=own.label_smoothing,
            auxiliary_weight=own.auxiliary_weight or 0.4,
            rng=rng,
        )
        return Gradients(loss, _correct(logits, batch[1]), gradients, statistics)

    def network(self, params: Flat) -> Network:
        """As `Trainable.network`."""
        return network_of(self._args, params, self._runner)


class WholeTrainable:
    """A linen model, compiled in one piece; what it keeps beside its weights is kept for it."""

    def __init__(self, model: nn.Module, label_smoothing: float, image_size: int) -> None:
        call, shape = type(model).__call__, (1, image_size, image_size, 3)
        still: dict[str, Any] = evaluation_flags(call)

        def init(key: jax.Array) -> Any:
            of_params, of_dropout = jax.random.split(key)
            rngs: Any = {"params": of_params, "dropout": of_dropout}
            return nn.meta.unbox(model.init(rngs, jnp.zeros(shape), **still))

        self._init = jax.jit(init)
        rest = {name: tree for name, tree in self._init(jax.random.key(0)).items() if name != "params"}
        self.statistics: Any = rest
        flags: dict[str, Any] = {name: not value for name, value in still.items()}
        if "dropout" in inspect.signature(call).parameters:  # models of the zoo are told apart from `train`
            flags["dropout"] = True
        self._evaluated = WholeModel(model, {})

        def gradients(params: Any, statistics: Any, batch: Batch, rng: jax.Array) -> tuple[Any, ...]:
            images, labels = batch

            def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
                variables, rngs = {"params": params, **statistics}, {"dropout": rng}
                output: Any = model.apply(variables, images, **flags, rngs=rngs, mutable=scope.DenyList("params"))
                targets = optax.smooth_labels(jax.nn.one_hot(labels, output[0].shape[-1]), label_smoothing)
                return optax.softmax_cross_entropy(output[0], targets).mean(), output

            (loss, (logits, after)), found = jax.value_and_grad(loss_of, has_aux=True)(params)
            return loss, _correct(logits, labels), found, {**statistics, **after}

        self._gradients = jax.jit(gradients)

    def new_params(self, key: jax.Array) -> Flat:
        """All weights, by the model's own rules."""
        return flat(self._init(key)["params"])

    def gradients(self, params: Flat, statistics: Any, batch: Batch, rng: jax.Array) -> Gradients:
        """As `Trainable.gradients`."""
        nested: Any = traverse_util.unflatten_dict(params)
        loss, correct, gradients, after = self._gradients(nested, statistics, batch, rng)
        return Gradients(loss, correct, flat(gradients), after)

    def network(self, params: Flat) -> Network:
        """As `Trainable.network`."""
        return self._evaluated.with_params(params)


@jax.jit
def _correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many images of logits (B, K) are classified correctly."""
    return (logits.argmax(axis=1) == labels).sum()
