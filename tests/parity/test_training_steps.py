"""Four meta-training steps give the losses, clipped gradients and weights of the original release.

The fixture holds losses and norms of tensors, no tensors.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from parity_data import PARITY, checkpoint, fixture_args, fixture_images, needs_parity

from ghn_jax.deepnets import MetaBatch, NetworkArgs, network_graph
from ghn_jax.hypernet import GHN, load_ghn, predict_params
from ghn_jax.hypernet.checkpoints.release_names import release_entries
from ghn_jax.metatraining.optimisation import OptimiserConfig, initial_state, update
from ghn_jax.metatraining.presets import GHN3_OPTIMISER
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.networks import TargetNetwork
from ghn_jax.runs import devices

CONFIG = OptimiserConfig()
GHN3_CONFIG = dataclasses.replace(GHN3_OPTIMISER, epochs=8)
BETA1 = 0.9


class Found(NamedTuple):
    """What one step gives: mean loss, and norms by the release's names of its tensors."""

    loss: float
    gradient_norm: float
    clipped: dict[str, float]
    after: dict[str, float]


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


def fixture_steps(name: str) -> list[dict[str, Any]]:
    folder = PARITY / "ghn3" if name.startswith("ghn3") else PARITY
    return json.loads((folder / f"train_{name}.json").read_text())["steps"]


def our_steps(name: str, wanted: Sequence[dict[str, Any]], config: OptimiserConfig = CONFIG) -> Iterator[Found]:
    """As a run makes them, with the learning rates of the fixture where it has some."""
    loaded = load_ghn(checkpoint(name))
    entries = release_entries(loaded.config)
    images, labels = fixture_images()
    mesh = devices.arch_mesh(jax.devices()[:1])
    params = loaded.variables["params"]
    step = MetaStep(loaded.ghn, config, mesh, params)
    state = devices.replicate(initial_state(config, params), mesh)
    for one in wanted:
        rows = slice(*one["image_slice"])
        batch = jnp.asarray(images[rows]), jnp.asarray(labels[rows], jnp.int32)
        moment, weights = first_moment(state), jax.device_get(state.params)
        state, report = step(state, meta_batch(one), batch, one.get("lr", config.learning_rate), jax.random.key(0))
        assert report.finite
        # Adam's first moment gives back the gradient it was fed: clipped first, L2 added after.
        fed = jax.tree.map(lambda new, old: (new - BETA1 * old) / (1 - BETA1), first_moment(state), moment)
        clipped = leaf_norms(jax.tree.map(lambda g, w: g - config.l2 * w, fed, weights), entries)
        yield Found(report.loss, report.gradient_norm, clipped, leaf_norms(state.params, entries))


def float64_steps(name: str, wanted: Sequence[dict[str, Any]], change: float = 0.0) -> list[Found]:
    """In float64, whole networks in one piece, gradients by JAX alone; initial weights changed by a share of them."""
    loaded = load_ghn(PARITY / "checkpoints" / f"{name}.pt")
    entries = release_entries(loaded.config)
    rng = np.random.default_rng(0)
    found = []
    with jax.enable_x64(True):

        def start(leaf: Any) -> jax.Array:
            exact = np.asarray(leaf, np.float64)
            return jnp.asarray(exact * (1 + change * rng.choice([-1, 1], exact.shape)))

        state = initial_state(CONFIG, jax.tree.map(start, loaded.variables["params"]))
        for one in wanted:
            loss, gradient = float64_gradient(loaded.ghn, state.params, one)
            assert loss.dtype == jnp.float64
            norm = float(optax.tree.norm(gradient))
            factor = min(1.0, CONFIG.clip / norm)
            clipped = {key: factor * value for key, value in leaf_norms(gradient, entries).items()}
            state, _ = update(state, gradient, loss, jnp.asarray(CONFIG.learning_rate), CONFIG)
            found.append(Found(float(loss), norm, clipped, leaf_norms(state.params, entries)))
    return found


def float64_gradient(ghn: GHN, params: Any, step: dict[str, Any]) -> tuple[jax.Array, Any]:
    """Mean loss of a step's networks and its gradient for the hypernetwork."""
    images, labels = fixture_images()
    rows = slice(*step["image_slice"])
    pixels, targets = jnp.asarray(images[rows], jnp.float64), jnp.asarray(labels[rows], jnp.int32)
    batch = meta_batch(step)
    predicted, vjp = jax.vjp(lambda p: predict_params(ghn, {"params": p}, batch.graphs), params)

    def loss_and_grads(args: NetworkArgs, flat: Any) -> tuple[jax.Array, Any]:
        def loss(flat: Any) -> jax.Array:
            logits = TargetNetwork(args).apply({"params": traverse_util.unflatten_dict(flat)}, pixels)
            return optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), targets).mean()

        return jax.jit(jax.value_and_grad(loss))(flat)

    results = [loss_and_grads(args, flat) for args, flat in zip(batch.args, predicted, strict=True)]
    (gradient,) = vjp([cotangents for _, cotangents in results])
    count = len(results)
    total = sum((loss for loss, _ in results), start=jnp.zeros(()))
    return total / count, jax.tree.map(lambda leaf: leaf / count, gradient)


def check_weights(after: dict[str, float], wanted: dict[str, float]) -> None:
    assert after.keys() == wanted.keys()
    for key, norm in wanted.items():
        # Biases of LayerNorm begin at 0: their norm is that of so many steps of the learning rate's size.
        tolerance = 0.1 * CONFIG.learning_rate if key == "ln.bias" else 0
        np.testing.assert_allclose(after[key], norm, rtol=1e-3, atol=tolerance, err_msg=key)


def check_step(found: Found, wanted: dict[str, Any], *, loss: float, gradient: float) -> None:
    """Against the release; `gradient` is a share of the whole clipped gradient's norm."""
    np.testing.assert_allclose(found.loss, wanted["loss"], rtol=loss)
    assert found.clipped.keys() == wanted["clipped_grad_norms"].keys()
    tolerance = gradient * min(found.gradient_norm, CONFIG.clip)
    for key, norm in wanted["clipped_grad_norms"].items():
        np.testing.assert_allclose(found.clipped[key], norm, rtol=1e-4, atol=tolerance, err_msg=key)
    check_weights(found.after, wanted["param_norms_after"])


@needs_parity
@pytest.mark.parametrize(("name", "gradient"), [("ghn1_tiny", 1e-4), ("ghn2_tiny", 1e-3)])
def test_the_first_step_agrees_with_the_release(name: str, gradient: float) -> None:
    wanted = fixture_steps(name)[:1]
    (found,) = our_steps(name, wanted)
    check_step(found, wanted[0], loss=1e-4, gradient=gradient)


@needs_parity
@pytest.mark.parametrize("count", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_steps_of_ghn3_agree_with_the_release(count: int) -> None:
    """AdamW, its schedule, and the penalty on norms, which the recorded losses contain."""
    wanted = fixture_steps("ghn3_tiny")
    rates = jnp.stack([jnp.asarray(GHN3_CONFIG.rates(1)(number)) for number in range(4)])
    np.testing.assert_allclose(rates, [one["lr"] for one in wanted], rtol=1e-6)
    wanted = wanted[:count]
    for found, one in zip(our_steps("ghn3_tiny", wanted, GHN3_CONFIG), wanted, strict=True):
        check_step(found, one, loss=1e-4, gradient=1e-3)


@needs_parity
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "losses", "gradients"),
    [("ghn1_tiny", (1e-4, 1e-4, 1e-4, 1e-2), (1e-4, 1e-4)), ("ghn2_tiny", (1e-4, 1e-3, 1e-2, 1e-2), (1e-3, 2e-2))],
    ids=["ghn1", "ghn2"],
)
def test_four_steps_agree_with_the_release_and_float64_decides_where_they_are_chaotic(
    name: str, losses: tuple[float, ...], gradients: tuple[float, float]
) -> None:
    """The first two steps are those of the release.

    From the third on rounding decides: deep batch-normalised networks amplify it, and Adam's first updates have the
    size of the learning rate whatever the gradient's, so that signs of tiny gradients count. The contract there is a
    share of the release's loss, 1 % at most, or being no further from float64 than float32 may be; gradients and
    weights are held to twice that. How far it may be is measured: on the release itself, and on a float64 run with
    initial weights changed by 1e-7 of themselves, about what float32 can tell.
    """
    wanted = fixture_steps(name)
    ours = list(our_steps(name, wanted))
    for found, one, loss, gradient in zip(ours, wanted, losses, gradients, strict=False):
        check_step(found, one, loss=loss, gradient=gradient)
    exact, changed = float64_steps(name, wanted), float64_steps(name, wanted, change=1e-7)
    for found, one, truth, other, loss in zip(ours[2:], wanted[2:], exact[2:], changed[2:], losses[2:], strict=True):
        release = Found(one["loss"], 0.0, one["clipped_grad_norms"], one["param_norms_after"])
        allowed = {key: max(value, distances(other, truth)[key]) for key, value in distances(release, truth).items()}
        assert allowed["gradient"] > 5e-4  # else the release's gradients could be asked for, as in the steps before
        reached = distances(found, truth)
        assert abs(found.loss / release.loss - 1) < loss or max(loss, reached["loss"]) <= allowed["loss"]
        for key in ("gradient", "weights", "ln.bias"):
            assert reached[key] <= 2 * allowed[key], key


def distances(found: Found, truth: Found) -> dict[str, float]:
    """Of losses, clipped gradients (shares of the whole one), weights, and biases of LayerNorm, which begin at 0, in
    learning rates.
    """
    weights = {key: abs(found.after[key] - norm) for key, norm in truth.after.items()}
    bias = weights.pop("ln.bias", 0.0)  # GHN-1 has none
    return {
        "loss": abs(found.loss / truth.loss - 1),
        "gradient": max(abs(found.clipped[key] - norm) for key, norm in truth.clipped.items()) / CONFIG.clip,
        "weights": max(value / truth.after[key] for key, value in weights.items()),
        "ln.bias": bias / CONFIG.learning_rate,
    }
