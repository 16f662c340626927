"""The optimiser of networks, against optax on whole trees."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ghn_jax.training import NetOptimiserConfig
from ghn_jax.training.optimiser import initial_moments, update

SHAPES = {("a", "kernel"): (3, 4), ("a", "bias"): (4,), ("b", "kernel"): (2, 2, 3)}


def params_and_gradients(steps: int) -> tuple[dict, list[dict]]:
    rng = np.random.default_rng(0)
    draw = lambda scale: {  # noqa: E731
        path: jnp.asarray(scale * rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()
    }
    return draw(1.0), [draw(4.0 / (1 + step)) for step in range(steps)]


@pytest.mark.parametrize(
    ("config", "whole"),
    [
        (
            NetOptimiserConfig(schedule="constant"),
            optax.chain(
                optax.clip_by_global_norm(5.0), optax.add_decayed_weights(3e-4), optax.sgd(0.025, momentum=0.9)
            ),
        ),
        (
            NetOptimiserConfig(
                method="adam", schedule="constant", learning_rate=1e-3, l2=0.0, weight_decay=0.1, clip=None
            ),
            optax.adamw(1e-3, weight_decay=0.1),
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_updates_are_those_of_optax(config: NetOptimiserConfig, whole: optax.GradientTransformation) -> None:
    params, gradients = params_and_gradients(5)
    expected: Any = params
    state = whole.init(params)
    ours = jax.tree.map(jnp.array, params)
    moments = initial_moments(config, ours)
    for gradient in gradients:
        steps, state = whole.update(gradient, state, expected)
        expected = optax.apply_updates(expected, steps)
        copied = jax.tree.map(jnp.array, gradient)
        ours, moments, made = update(
            config, ours, moments, (jnp.float32(1.0), copied), jnp.float32(config.learning_rate)
        )
        assert made
    for path in params:
        np.testing.assert_allclose(ours[path], expected[path], rtol=2e-6, atol=1e-7, err_msg=str(path))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_an_update_that_is_not_finite_changes_nothing(bad: float, where: str) -> None:
    config = NetOptimiserConfig(schedule="constant")
    params, (gradient,) = params_and_gradients(1)
    before = jax.tree.map(np.array, params)
    moments = initial_moments(config, params)
    loss = jnp.float32(1.0)
    if where == "loss":
        loss = jnp.float32(bad)
    else:
        gradient["a", "kernel"] = gradient["a", "kernel"].at[0, 0].set(bad)
    new, after, made = update(config, params, moments, (loss, gradient), jnp.float32(0.1))
    assert not made
    jax.tree.map(np.testing.assert_array_equal, new, before)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(after))


def rates(steps: int, per_epoch: int, **changes: Any) -> Any:
    return NetOptimiserConfig(learning_rate=1.0, **changes).rates(steps, per_epoch)


def test_rates() -> None:
    cosine = rates(100, 10)
    np.testing.assert_allclose([cosine(0), cosine(50), cosine(100)], [1.0, 0.5, 0.0], atol=1e-6)
    by_epoch = rates(100, 10, every_epoch=True)
    assert float(by_epoch(9)) == 1.0
    assert float(by_epoch(10)) == float(by_epoch(19)) == float(cosine(10))
    steps = rates(8, 2, schedule="steps", milestones=(0.5, 0.75))
    np.testing.assert_allclose([steps(i) for i in (3, 5, 7)], [1.0, 0.1, 0.01], rtol=1e-6)
    warm = rates(100, 10, schedule="constant", warmup_steps=4)
    np.testing.assert_allclose([warm(i) for i in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "adam", "momentum": 0.5}, "momentum = 0.5 has no effect with adam"),
        ({"milestones": (0.5,)}, "has no effect with the schedule 'cosine'"),
        ({"schedule": "constant", "every_epoch": True}, "every_epoch = True has no effect"),
        ({"schedule": "steps", "milestones": (0.5, 0.5)}, "milestones must rise"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ({"clip": 0.0}, "clip must be"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(NetOptimiserConfig(), **changes)
