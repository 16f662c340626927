"""A DeepNets-1M network as one ordinary Flax module."""

from collections.abc import Sequence
from typing import cast

import flax.linen as nn
import jax
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
        values = run_calls(self, plan.calls, images, train=train)
        logits = values[plan.output]
        return (logits, values[plan.auxiliary]) if train and plan.auxiliary is not None else logits


class Backbone(nn.Module):
    """The network of `args` up to its last feature map; parameters as in `TargetNetwork`, less the classifier's.

    Attributes:
      args: the network, for images of the size that the backbone is going to see.
      momentum: as in `TargetNetwork`.
    """

    args: NetworkArgs
    momentum: float | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Images (B, H, W, 3), normalised, to features (B, h, w, C)."""
        plan = network_plan(self.args, self.momentum)
        (head,) = (call for call in plan.calls if call.output == plan.output)
        calls = [call for call in plan.calls if call is not head]
        return run_calls(self, calls, images, train=train)[head.inputs[0]]


def run_calls(module: nn.Module, calls: Sequence[LayerCall], images: jax.Array, *, train: bool) -> dict[int, jax.Array]:
    """Values of a plan's calls, by id, the parameters under the module's scope; only inside a compact method."""
    values = {IMAGES: images}
    for call in calls:
        layer = _bound(module, call)
        values[call.output] = layer(*(values[i] for i in call.inputs), train=train)
    return values


def _bound(module: nn.Module, call: LayerCall) -> nn.Module:
    """The layer of `call`, bound to the place of its parameters in the module's tree."""
    scope = cast(Scope, module.scope)  # Flax calls no compact method without one
    for name in call.prefix:
        scope = scope.push(name, reuse=True)
    return call.layer.clone(parent=scope)
