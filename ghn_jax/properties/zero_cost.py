"""Scores of untrained networks from one batch, or none (Abdelfattah et al., ICLR 2021).

Networks run layer by layer, so that nothing is compiled for one alone.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.deepnets import NetworkArgs, network_graph
from ghn_jax.graphs.param_spec import Path
from ghn_jax.images import Batch
from ghn_jax.networks import network_plan
from ghn_jax.networks.runner import Runner

Params = Mapping[Path, jax.Array]


def gradient_norm(args: NetworkArgs, params: Params, batch: Batch, runner: Runner) -> float:
    """Norm of the loss's gradient for all weights."""
    gradients = _gradients(args, params, batch, runner)
    return float(np.sqrt(sum(float(jnp.vdot(leaf, leaf)) for leaf in gradients.values())))


def snip(args: NetworkArgs, params: Params, batch: Batch, runner: Runner) -> float:
    """Sum over weights of the size of weight times gradient (Lee et al., 2019)."""
    gradients = _gradients(args, params, batch, runner)
    return float(sum(float(jnp.abs(params[path] * leaf).sum()) for path, leaf in gradients.items()))


def _gradients(args: NetworkArgs, params: Params, batch: Batch, runner: Runner) -> Params:
    return runner.loss_and_grads(network_plan(args), params, *batch, train=False)[2]


def synflow(args: NetworkArgs, params: Params, runner: Runner) -> float:
    """Logarithm of the sum of weight times gradient of the logits' sum, of sizes of weights and an image of ones.

    The network has no batch normalisation (Tanaka et al., 2020): its kernels are those given, in size, divided by the
    mean sum over the inputs of an output, which keeps the numbers within float32.
    """
    bare = args.replace(norm=None)
    sizes = {path: _evened(leaf) if path[-1] == "kernel" else jnp.abs(leaf) for path, leaf in params.items()}
    images = jnp.ones((1, args.image_size, args.image_size, 3))
    shapes = {spec.path: spec.shape for spec in network_graph(bare).params}
    # layers without a norm may have a bias that the network itself has not
    given = {path: sizes.get(path, jnp.zeros(shape)) for path, shape in shapes.items()}
    _, _, gradients = runner.sensitivities(network_plan(bare), given, images)
    total = sum(float((given[path] * leaf).sum()) for path, leaf in gradients.items())
    return float(np.log(total)) if total > 0 else float("-inf")


def _evened(kernel: jax.Array) -> jax.Array:
    size = jnp.abs(kernel)
    return size / jnp.maximum(size.sum() / kernel.shape[-1], 1e-12)


def jacobian_covariance(args: NetworkArgs, params: Params, batch: Batch, runner: Runner) -> float:
    """How different the images' gradients are: minus the sum of ln v + 1 / v over eigenvalues v of their correlations.

    The gradient is that of the sum of an image's logits (Mellor et al., 2021, first version).
    """
    _, jacobian, _ = runner.sensitivities(network_plan(args), params, batch[0])
    rows = np.asarray(jacobian, np.float64).reshape(len(jacobian), -1)
    if not np.isfinite(rows).all() or (rows.std(axis=1) == 0).any():
        return float("-inf")
    values = np.linalg.eigvalsh(np.corrcoef(rows))
    return float(-np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5)))
