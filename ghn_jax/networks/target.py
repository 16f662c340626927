"""A DeepNets-1M network as one ordinary Flax module."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import Scope

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.plan import IMAGES, LayerCall, network_plan


class TargetNetwork(nn.Module):
    """The network of `args`; its parameter paths are those of the specs of its graph.

    Attributes:
      args: the network.
      momentum: None (default) normalises by the statistics of the batch, always; a number such as 0.9 keeps running
        statistics in the collection ``batch_stats``, used when not training.
      drop_path: probability of dropping an op's output for one image, in training only.
      auxiliary: whether training also returns the logits of an auxiliary head.
      platform: "cpu" takes the formulations that are fast on CPUs, which large nets are slow to compile with; None
        (default) XLA's own, which a tracer can read.
    """

    args: NetworkArgs
    momentum: float | None = None
    drop_path: float = 0.0
    auxiliary: bool = False
    platform: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Images (B, H, W, 3), normalised, to logits (B, K).

        Training needs the key ``dropout`` if the classifier has two layers or `drop_path` is above 0.

        Returns:
          Logits, or (logits, auxiliary logits) if `auxiliary` and `train`.
        """
        with compiling_for(self.platform):
            return self._run(images, train)

    def _run(self, images: jax.Array, train: bool) -> jax.Array | tuple[jax.Array, jax.Array]:
        auxiliary = self.auxiliary and (train or self.is_initializing())
        drop_path = self.drop_path if train else 0.0
        plan = network_plan(self.args, self.momentum, drop_path=drop_path, auxiliary=auxiliary)
        values = {IMAGES: images}
        for call in plan.calls:
            values[call.output] = self._layer(call)(*(values[i] for i in call.inputs), train=train)
        logits = values[plan.output]
        return (logits, values[plan.auxiliary]) if train and plan.auxiliary is not None else logits

    def _layer(self, call: LayerCall) -> nn.Module:
        """The layer of `call`, bound to the place of its parameters in this network's tree."""
        scope = cast(Scope, self.scope)  # Flax calls no compact method without one
        for name in call.prefix:
            scope = scope.push(name, reuse=True)
        return call.layer.clone(parent=scope)


def reestimate_statistics(
    network: TargetNetwork, variables: Mapping[str, Any], batches: Iterable[jax.Array]
) -> dict[str, Any]:
    """Running statistics of a network as plain averages over batches (B, H, W, 3), for example after averaging weights.

    Returns:
      The variables with a new collection ``batch_stats``.

    Raises:
      ValueError: for a network without running statistics, or for no batches.
    """
    if network.momentum is None:
        raise ValueError("running statistics: this network keeps none; give TargetNetwork a momentum")
    # Momentum 0 leaves each batch's own statistics. Dropout comes after the last of them: its key does not matter.
    single = network.clone(momentum=0.0, drop_path=0.0)
    rngs = {"dropout": jax.random.key(0)}
    update = jax.jit(lambda images: single.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[1])
    total, count = None, 0
    for images in batches:
        stats = update(images)["batch_stats"]
        total = stats if total is None else jax.tree.map(jnp.add, total, stats)
        count += 1
    if total is None:
        raise ValueError("running statistics: no batches were given to estimate them from")
    return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf / count, total)}
