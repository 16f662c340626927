"""Zero-cost scores against whole networks and plain derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from network_args import small_args
from tiny_networks import images_and_labels, tiny_batch

from ghn_jax.deepnets import NetworkArgs, network_graph
from ghn_jax.networks import Runner, TargetNetwork, network_plan
from ghn_jax.networks.random_init import he_initialisation
from ghn_jax.properties.zero_cost import gradient_norm, jacobian_covariance, snip, synflow

BATCH = images_and_labels()
RUNNER = Runner()


def network(number: int) -> tuple[NetworkArgs, dict[Any, jax.Array], Any]:
    args, graph = tiny_batch().args[number], tiny_batch().graphs[number]
    params = he_initialisation(graph, jax.random.key(number))
    module: Any = TargetNetwork(args)

    def logits(flat: dict[Any, jax.Array], images: jax.Array) -> jax.Array:
        return module.apply({"params": traverse_util.unflatten_dict(flat)}, images)

    return args, params, logits


@pytest.mark.parametrize("number", [0, 1])
def test_sensitivities_are_gradients_of_the_sum(number: int) -> None:
    args, params, logits = network(number)
    total, found, gradients = RUNNER.sensitivities(network_plan(args), params, BATCH[0])
    np.testing.assert_allclose(total, logits(params, BATCH[0]), rtol=1e-4, atol=1e-4)
    of_params, of_images = jax.grad(lambda p, x: logits(p, x).sum(), argnums=(0, 1))(params, BATCH[0])
    np.testing.assert_allclose(found, of_images, rtol=1e-3, atol=1e-4)
    for path, leaf in gradients.items():
        np.testing.assert_allclose(leaf, of_params[path], rtol=1e-3, atol=1e-3, err_msg=str(path))


def test_scores_of_gradients() -> None:
    args, params, logits = network(0)

    def loss(flat: dict[Any, jax.Array]) -> jax.Array:
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits(flat, BATCH[0])), BATCH[1][:, None], axis=1)
        return -chosen.mean()

    gradient = jax.grad(loss)(params)
    norm = np.sqrt(sum(float(jnp.vdot(leaf, leaf)) for leaf in gradient.values()))
    assert gradient_norm(args, params, BATCH, RUNNER) == pytest.approx(norm, rel=1e-3)
    saliency = sum(float(jnp.abs(params[path] * leaf).sum()) for path, leaf in gradient.items())
    assert snip(args, params, BATCH, RUNNER) == pytest.approx(saliency, rel=1e-3)


def test_synflow_of_a_chain_counts_its_layers() -> None:
    """Of a chain of linear layers every layer's sum of weight times gradient is the same: the sum of the logits."""
    args = small_args((("conv_1x1", 1), ("none", 0)), n_cells=1, C_mult=1, image_size=8)
    graph = network_graph(args.replace(norm=None))
    params = {
        spec.path: jnp.ones(spec.shape) if len(spec.shape) > 1 else jnp.zeros(spec.shape) for spec in graph.params
    }
    kernels = sum(len(spec.shape) > 1 for spec in graph.params)
    one = synflow(args, params, RUNNER)
    assert np.isfinite(one)
    doubled = {path: 2 * leaf for path, leaf in params.items()}
    assert synflow(args, doubled, RUNNER) == pytest.approx(one)  # sizes alone do not count
    assert kernels >= 3


def test_images_that_are_told_apart_score_higher() -> None:
    args, params, logits = network(1)
    jacobian = jax.grad(lambda x: logits(params, x).sum())(BATCH[0])
    values = np.linalg.eigvalsh(np.corrcoef(np.asarray(jacobian, np.float64).reshape(16, -1)))
    expected = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5))
    assert jacobian_covariance(args, params, BATCH, RUNNER) == pytest.approx(expected, rel=1e-2)
    nothing = {path: jnp.zeros_like(leaf) for path, leaf in params.items()}
    assert jacobian_covariance(args, nothing, BATCH, RUNNER) == float("-inf")
