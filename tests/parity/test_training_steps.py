"""Four meta-training steps give the losses, clipped gradients and weights of the original release."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity_data import PARITY, fixture_args, fixture_images, needs_parity

from ghn_jax.deepnets import MetaBatch, NetworkArgs, network_graph
from ghn_jax.hypernet import load_ghn
from ghn_jax.hypernet.release_names import release_entries
from ghn_jax.training import devices
from ghn_jax.training.optimisation import OptimiserConfig, initial_state
from ghn_jax.training.step import MetaStep

CONFIG = OptimiserConfig()
BETA1 = 0.9

# Loss tolerances are those of the fixtures' README; norms of gradients and weights are compared as the losses are.
LOSS_TOLERANCE = (1e-3, 1e-3, 1e-2, 1e-2)
GRADIENT_TOLERANCE = (2e-3, 2e-3, 2e-2, 2e-2)
WEIGHT_TOLERANCE = 1e-3


def meta_batch(step: dict[str, Any]) -> MetaBatch:
    args = tuple(
        NetworkArgs.from_json(fixture_args()[f"train/{index}"], C=C, fc_dim=fc_dim)
        for index, C, fc_dim in zip(step["arch"], step["C"], step["fc_dim"], strict=True)
    )
    return MetaBatch(0, len(args), args, tuple(network_graph(a, f"train/{i}") for i, a in enumerate(args)))


def leaf_norms(tree: Any, entries: Any) -> dict[str, float]:
    norms = {}
    for entry in entries:
        leaf = tree
        for part in entry.path:
            leaf = leaf[part]
        norms[entry.name] = float(jnp.linalg.norm(leaf.reshape(-1)))
    return norms


def first_moment(state: Any) -> Any:
    (adam,) = (part for part in state.moments if isinstance(part, optax.ScaleByAdamState))
    return jax.device_get(adam.mu)


@needs_parity
@pytest.mark.parametrize("name", ["ghn2_tiny", "ghn1_tiny"])
def test_steps_agree_with_the_release(name: str) -> None:
    expected = json.loads((PARITY / f"train_{name}.json").read_text())["steps"]
    loaded = load_ghn(PARITY / "checkpoints" / f"{name}.pt")
    entries = release_entries(loaded.config)
    images, labels = fixture_images()
    mesh = devices.arch_mesh(jax.devices()[:1])
    params = loaded.variables["params"]
    step = MetaStep(loaded.ghn, CONFIG, mesh, params)
    state = devices.replicate(initial_state(CONFIG, params), mesh)
    for number, wanted in enumerate(expected):
        rows = slice(*wanted["image_slice"])
        batch = jnp.asarray(images[rows]), jnp.asarray(labels[rows], jnp.int32)
        moment, weights = first_moment(state), jax.device_get(state.params)
        state, report = step(state, meta_batch(wanted), batch, CONFIG.learning_rate, jax.random.key(0))
        assert report.finite
        np.testing.assert_allclose(report.loss, wanted["loss"], rtol=LOSS_TOLERANCE[number])
        # Adam's first moment gives back the gradient it was fed: clipped first, L2 added after.
        fed = jax.tree.map(lambda new, old: (new - BETA1 * old) / (1 - BETA1), first_moment(state), moment)
        clipped = leaf_norms(jax.tree.map(lambda g, w: g - CONFIG.l2 * w, fed, weights), entries)
        total = np.sqrt(sum(norm**2 for norm in wanted["clipped_grad_norms"].values()))
        for key, norm in wanted["clipped_grad_norms"].items():
            np.testing.assert_allclose(
                clipped[key], norm, rtol=GRADIENT_TOLERANCE[number], atol=1e-4 * total, err_msg=f"{number} {key}"
            )
        after = leaf_norms(state.params, entries)
        assert set(after) == set(wanted["param_norms_after"])
        for key, norm in wanted["param_norms_after"].items():
            np.testing.assert_allclose(after[key], norm, rtol=WEIGHT_TOLERANCE, err_msg=f"{number} {key}")
