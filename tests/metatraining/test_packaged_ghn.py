"""The packaged hypernetwork does what its card says."""

import numpy as np
import pytest

import ghn_jax
from ghn_jax.deepnets.demo_space import DemoStream
from ghn_jax.hypernet import training_range
from ghn_jax.images import load_images
from ghn_jax.images.pipeline import eval_batches
from ghn_jax.networks import TargetNetwork


def test_default_hypernetwork_recognises_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_range, "_told", set())
    batch = next(DemoStream(meta_batch=1, for_training=False, width=16, num_classes=10, image_size=8))
    images, labels = next(iter(eval_batches(load_images("digits", image_size=8), "test", 64)))
    with pytest.warns(UserWarning, match="trained on scikit-learn's 8 x 8 digits"):
        variables = ghn_jax.predict(batch.graphs[0])
    logits = TargetNetwork(batch.args[0]).apply(variables, images)
    assert np.mean(np.argmax(np.asarray(logits), -1) == np.asarray(labels)) > 0.5
