"""The optimiser against its formulas: clip, then L2, then Adam; schedules; updates that are left out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ghn_jax.metatraining.optimisation import OptimiserConfig, initial_state, update


def by_hand(params: list[np.ndarray], gradients: list[list[np.ndarray]], config: OptimiserConfig) -> list[np.ndarray]:
    """torch.nn.utils.clip_grad_norm_, then torch.optim.Adam(weight_decay=l2) or AdamW(weight_decay), in float64."""
    params = [p.astype(np.float64) for p in params]
    first = [np.zeros_like(p) for p in params]
    second = [np.zeros_like(p) for p in params]
    for number, step in enumerate(gradients, 1):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in step))
        factor = min(1, config.clip / norm)
        for i, raw in enumerate(step):
            g = factor * raw + config.l2 * params[i]
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            rescaled = np.sqrt(second[i] / (1 - 0.999**number)) + 1e-8
            decayed = (1 - config.learning_rate * config.weight_decay) * params[i]
            params[i] = decayed - config.learning_rate * first[i] / (1 - 0.9**number) / rescaled
    return params


@pytest.mark.parametrize("decay", [{"l2": 0.3}, {"l2": 0.0, "weight_decay": 20.0}])
def test_updates_are_clip_then_l2_then_adam_then_decay(decay: dict[str, float]) -> None:
    config = dataclasses.replace(OptimiserConfig(), **decay)
    rng = np.random.default_rng(0)
    shapes = ((4, 3), (5,))
    params = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    gradients = [[(scale * rng.normal(size=shape)).astype(np.float32) for shape in shapes] for scale in (0.1, 50, 3)]
    state = initial_state(config, [jnp.asarray(p) for p in params])
    for gradient in gradients:
        state, report = update(state, gradient, jnp.zeros(()), jnp.asarray(config.learning_rate), config)
        assert bool(report.finite)
    for ours, wanted in zip(state.params, by_hand(params, gradients, config), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=2e-5)


def test_muon_orthogonalises_kernels_and_leaves_the_rest_to_adam() -> None:
    config = OptimiserConfig(method="muon", l2=0.0, average=0.9)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (6, 4, 5), "input_kernel": (8, 3), "bias": (7,), "embed": (5, 6)}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    gradient = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    state, _ = update(initial_state(config, params), gradient, jnp.zeros(()), jnp.asarray(1.0), config)
    steps = {name: np.asarray(params[name] - state.params[name]) for name in shapes}
    for name in ("kernel", "input_kernel"):
        step, raw = (np.reshape(each, (len(each), -1)) for each in (steps[name], gradient[name]))
        # Five Newton-Schulz iterations bring singular values to about 0.7 .. 1.2; the scale is that of Adam's steps.
        sizes = np.linalg.svd(step)[1] / (0.2 * np.sqrt(max(step.shape)))
        assert 0.6 < sizes.min() <= sizes.max() < 1.3
        left, _, right = np.linalg.svd(raw, full_matrices=False)
        assert np.corrcoef((left @ right).ravel(), step.ravel())[0, 1] > 0.9
    for name in ("bias", "embed"):
        np.testing.assert_allclose(np.abs(steps[name]), np.abs(steps[name]).mean(), rtol=1e-3)
        np.testing.assert_array_equal(np.sign(steps[name]), np.sign(gradient[name]))
    assert state.learned["bias"] is not state.params["bias"]


def test_the_average_follows_the_weights_and_skips_what_is_not_finite() -> None:
    config = OptimiserConfig(average=0.5)
    state = initial_state(config, {"w": jnp.array([1.0, -2.0])})
    wanted = np.array([1.0, -2.0])
    for count, gradient in enumerate(([0.5, 1.0], [jnp.nan, 1.0], [2.0, -1.0], [0.1, 0.3], *[[1.0, 1.0]] * 6)):
        finite = bool(np.isfinite(gradient).all())
        state, _ = update(state, {"w": jnp.array(gradient)}, jnp.zeros(()), jnp.asarray(0.1), config)
        made = count + 1 - (count >= 1)
        decay = min(0.5, (1 + made) / (10 + made))
        wanted = decay * wanted + (1 - decay) * np.asarray(state.params["w"]) if finite else wanted
        np.testing.assert_allclose(state.learned["w"], wanted, rtol=1e-6)
    assert config.average < 11 / 19  # the last updates had the full decay
    assert not np.allclose(state.learned["w"], state.params["w"])
    assert initial_state(OptimiserConfig(), state.params).learned is state.params


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_an_update_that_is_not_finite_changes_nothing_but_the_count(where: str) -> None:
    config = OptimiserConfig()
    start = initial_state(config, {"w": jnp.ones(3)})
    before, _ = update(start, {"w": jnp.ones(3)}, jnp.zeros(()), jnp.asarray(0.1), config)
    gradient = {"w": jnp.array([1.0, jnp.inf if where == "gradient" else 0.0, 0.0])}
    loss = jnp.asarray(jnp.nan if where == "loss" else 0.0)
    after, report = update(before, gradient, loss, jnp.asarray(0.1), config)
    assert not bool(report.finite)
    assert int(after.skipped) == 1
    jax.tree.map(np.testing.assert_array_equal, (before.params, before.moments), (after.params, after.moments))


def test_the_rate_drops_at_milestones_counted_in_epochs() -> None:
    config = OptimiserConfig()
    assert config.total_steps(700) == 210_000
    rates = np.array([config.rates(700)(step) for step in (0, 700 * 200 - 1, 700 * 200, 700 * 250, 700 * 299)])
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-5, 1e-5], rtol=2e-7)


def test_cosine_with_warm_up_rises_then_falls_to_zero() -> None:
    config = OptimiserConfig(epochs=10, steps=100, schedule="cosine", warmup_steps=10)
    assert config.total_steps(1000) == 100
    rates = np.array([config.rates(1000)(step) for step in range(101)])
    steps = np.arange(101)
    expected = 1e-3 * np.minimum((steps + 1) / 10, 1) * 0.5 * (1 + np.cos(np.pi * steps / 100))
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-10)
    assert rates.argmax() == 9


def test_cosine_with_warm_up_by_epochs_is_that_of_ghn3() -> None:
    config = OptimiserConfig(epochs=9, learning_rate=4e-4, schedule="cosine-warmup")
    rates = np.array([config.rates(3)(step) for step in range(27)]).reshape(9, 3)
    np.testing.assert_array_equal(rates, np.repeat(rates[:, :1], 3, axis=1))
    np.testing.assert_allclose(rates[:4, 0], np.linspace(1e-5, 4e-4, 5)[:4], rtol=1e-6)
    np.testing.assert_allclose(rates[4:, 0], 2e-4 * (1 + np.cos(np.pi * np.arange(-1, 4) / 4)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"cosine-warmup needs at least 6 epochs, got 5 \(13 steps of 3 an epoch\)"):
        OptimiserConfig(steps=13, schedule="cosine-warmup").rates(3)


def test_a_milestone_may_stand_twice_and_the_rise_multiplies_the_steps() -> None:
    config = OptimiserConfig(milestones=(2, 2), warmup_steps=4)
    rates = np.array([config.rates(3)(step) for step in (0, 1, 3, 5, 6)])
    np.testing.assert_allclose(rates, [2.5e-4, 5e-4, 1e-3, 1e-3, 1e-5], rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("steps", 0),
        ("learning_rate", 0.0),
        ("clip", 0.0),
        ("l2", -1.0),
        ("max_skipped", 2.0),
        ("weight_decay", -1.0),
        ("norm_penalty", -1.0),
    ],
)
def test_impossible_settings_are_rejected(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be"):
        OptimiserConfig(**{field: value})  # pyright: ignore[reportArgumentType]
