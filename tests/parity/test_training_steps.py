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
from ghn_jax.hypernet.checkpoints.release_names import release_entries
from ghn_jax.metatraining.optimisation import OptimiserConfig, initial_state
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.runs import devices

CONFIG = OptimiserConfig()
BETA1 = 0.9

# GHN-1 agrees to rounding in all four steps. GHN-2's deep batch-normalised networks amplify rounding, and Adam's first
# steps have the size of the learning rate whatever the gradient's, so that signs of tiny gradients decide: changing our
# own initial weights by 1e-7 of their size changes GHN-2's losses by 7e-4, 1e-2 and 3e-2 at steps 2, 3 and 4, and its
# gradient norms by 6e-4, 1e-2, 4e-2 and 7e-2 of the whole gradient's. The release is compared with that much room.
LOSS_TOLERANCE = {"ghn1_tiny": (1e-4,) * 4, "ghn2_tiny": (1e-4, 1e-3, 3e-2, 6e-2)}
GRADIENT_TOLERANCE = {"ghn1_tiny": (1e-4,) * 4, "ghn2_tiny": (1e-3, 2e-2, 8e-2, 1.5e-1)}
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
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("ghn1_tiny", 1),
        ("ghn2_tiny", 1),
        pytest.param("ghn1_tiny", 4, marks=pytest.mark.slow),
        pytest.param("ghn2_tiny", 4, marks=pytest.mark.slow),
    ],
)
def test_steps_agree_with_the_release(name: str, steps: int) -> None:
    expected = json.loads((PARITY / f"train_{name}.json").read_text())["steps"]
    loaded = load_ghn(PARITY / "checkpoints" / f"{name}.pt")
    entries = release_entries(loaded.config)
    images, labels = fixture_images()
    mesh = devices.arch_mesh(jax.devices()[:1])
    params = loaded.variables["params"]
    step = MetaStep(loaded.ghn, CONFIG, mesh, params)
    state = devices.replicate(initial_state(CONFIG, params), mesh)
    for number, wanted in enumerate(expected[:steps]):
        rows = slice(*wanted["image_slice"])
        batch = jnp.asarray(images[rows]), jnp.asarray(labels[rows], jnp.int32)
        moment, weights = first_moment(state), jax.device_get(state.params)
        state, report = step(state, meta_batch(wanted), batch, CONFIG.learning_rate, jax.random.key(0))
        assert report.finite
        np.testing.assert_allclose(report.loss, wanted["loss"], rtol=LOSS_TOLERANCE[name][number])
        # Adam's first moment gives back the gradient it was fed: clipped first, L2 added after.
        fed = jax.tree.map(lambda new, old: (new - BETA1 * old) / (1 - BETA1), first_moment(state), moment)
        clipped = leaf_norms(jax.tree.map(lambda g, w: g - CONFIG.l2 * w, fed, weights), entries)
        assert clipped.keys() == wanted["clipped_grad_norms"].keys()
        room = GRADIENT_TOLERANCE[name][number] * min(report.gradient_norm, CONFIG.clip)
        for key, norm in wanted["clipped_grad_norms"].items():
            np.testing.assert_allclose(clipped[key], norm, rtol=1e-4, atol=room, err_msg=f"{number} {key}")
        after = leaf_norms(state.params, entries)
        assert after.keys() == wanted["param_norms_after"].keys()
        for key, norm in wanted["param_norms_after"].items():
            # Biases of LayerNorm begin at 0: their norm is that of so many steps of the learning rate's size.
            room = 0.1 * CONFIG.learning_rate if key == "ln.bias" else 0
            np.testing.assert_allclose(after[key], norm, rtol=WEIGHT_TOLERANCE, atol=room, err_msg=f"{number} {key}")
