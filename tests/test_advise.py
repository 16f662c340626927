"""`advise` on small models: what it tries, what it says, and that it is not taken in by a bad hypernetwork."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from tiny_networks import IMAGE_SIZE, tiny_batch, tiny_ghn

import ghn_jax
from ghn_jax.advising import Advice, Evidence
from ghn_jax.hypernet import PretrainedGHN
from ghn_jax.images import ImageSet, eval_batches, load_images

GHN = PretrainedGHN(*tiny_ghn())
BAD = PretrainedGHN(GHN.ghn, jax.tree.map(lambda leaf: 1e4 * leaf, GHN.variables))


class Small(nn.Module):
    """A convolution, a norm and a classifier."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(10)(x.mean(axis=(1, 2)) * self.param("gain", nn.initializers.ones, ()))


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    images = load_images("digits", IMAGE_SIZE)
    assert isinstance(images, ImageSet)
    batches = list(eval_batches(images, "train", 64, 512))
    return tuple(np.concatenate([np.asarray(batch[i]) for batch in batches]) for i in (0, 1))  # type: ignore[return-value]


@pytest.mark.parametrize("model", [Small(), tiny_batch().args[0]], ids=["linen", "DeepNets-1M"])
def test_the_start_that_learns_is_advised(model: Any, data: tuple[np.ndarray, np.ndarray]) -> None:
    found = ghn_jax.advise(model, *data, BAD, steps=20, batch_size=32)
    assert [one.start for one in found.evidence] == ["own", "predicted", "predicted+noise", "predicted+orth"]
    losses = {one.start: one.loss for one in found.evidence}
    assert found.start == min(losses, key=lambda name: losses[name])
    assert losses["own"] < losses["predicted"]
    own = found.evidence[0]
    assert own.loss < own.loss_at_once
    assert own.skipped == 0
    assert "<- use this" in str(found)
    assert "loss after 20" in str(found)


def test_the_weights_are_those_of_the_advised_start(data: tuple[np.ndarray, np.ndarray]) -> None:
    found = ghn_jax.advise(Small(), *data, GHN, starts=("predicted",), steps=2, batch_size=32)
    again = ghn_jax.advise(Small(), *data, GHN, starts=("predicted",), steps=3, batch_size=32)
    expected = ghn_jax.init_like(Small(), jax.random.key(0), jax.numpy.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3)), GHN)
    assert found.start == "predicted"
    assert not found.predicted_hurts
    assert jax.tree.structure(found.params) == jax.tree.structure(expected["params"])
    jax.tree.map(np.testing.assert_array_equal, found.params, again.params)
    np.testing.assert_array_equal(found.params["Conv_0"]["kernel"], expected["params"]["Conv_0"]["kernel"])


def test_losses_that_are_not_finite_lose() -> None:
    evidence = (Evidence("own", 2.0, 0.1, 1.5, 0.4, 0), Evidence("predicted", float("nan"), 0.1, float("nan"), 0.1, 9))
    advice = Advice("own", evidence, 10, {})
    assert advice.predicted_hurts
    assert "nan" in str(advice)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"starts": ("nothing",)}, "starts must be own or some of he, torch"),
        ({"starts": ()}, "got none"),
        ({"steps": 0}, "steps must be"),
        ({"held_out": 1.0}, "held_out must be"),
        ({"batch_size": 1_000}, "at least a batch of 1000 beside those held out"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict, words: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=words):
        ghn_jax.advise(Small(), *data, GHN, **changes)
