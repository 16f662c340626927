"""Random keys: one root for each use of a seed, and no key used twice in a step."""

import collections
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from tiny_networks import IMAGE_SIZE, tiny_batch

from ghn_jax import keys
from ghn_jax.deepnets import MetaBatch, network_graph
from ghn_jax.hypernet import GHN, GHNConfig, init_ghn
from ghn_jax.images import ImageSet, ImageSplit, Style, train_batches
from ghn_jax.keys import named_key
from ghn_jax.metatraining.optimisation import OptimiserConfig, initial_state
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.networks.random_init import he_initialisation
from ghn_jax.runs import devices

NAMES = [value for name, value in vars(keys).items() if name.isupper()]
CONSUMERS = ("bernoulli", "normal", "randint", "truncated_normal", "uniform")
FLIPPED_AND_CROPPED = Style(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), crop_padding=4, flip=True)


def data(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_roots_differ_by_name_and_seed_and_are_no_small_descendants_of_one_another() -> None:
    roots = {(seed, name): named_key(seed, name) for seed in (0, 1) for name in NAMES}
    derived = [data(root) for root in roots.values()]
    for root in (*roots.values(), jax.random.key(0), jax.random.key(1)):
        derived += [data(jax.random.fold_in(root, number)) for number in range(40)]
    assert len(set(derived)) == len(derived)
    assert data(named_key(3, "x")) == data(named_key(3, "x"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> collections.Counter:
    """Counts every key that anything draws random numbers from, in compiled programs too."""
    found: collections.Counter = collections.Counter()

    for name in CONSUMERS:
        original = getattr(jax.random, name)

        def recording(key: jax.Array, *args: Any, _original: Any = original, **options: Any) -> jax.Array:
            jax.debug.callback(
                lambda words: found.update([tuple(np.asarray(words).tolist())]), jax.random.key_data(key)
            )
            return _original(key, *args, **options)

        monkeypatch.setattr(jax.random, name, recording)
    return found


def test_no_key_is_used_twice_in_a_step(drawn: collections.Counter) -> None:
    seed = 0
    args = tuple(one.replace(fc_layers=2, fc_dim=8) for one in tiny_batch().args)
    architectures = MetaBatch(0, len(args), args, tuple(network_graph(one) for one in args))
    ghn = GHN(GHNConfig(max_shape=(4, 4, 3, 3), hid=8))
    params = init_ghn(ghn, named_key(seed, keys.INITIALISATION))["params"]
    jax.effects_barrier()
    counts = [len(drawn)]
    pixels = np.random.default_rng(0).integers(0, 256, (18, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    split = ImageSplit(pixels, np.arange(18, dtype=np.int32) % 10)
    images = train_batches(ImageSet("noise", split, split, split, 10, FLIPPED_AND_CROPPED), 18, seed)
    config, mesh = OptimiserConfig(), devices.arch_mesh(jax.devices()[:1])
    step, state = MetaStep(ghn, config, mesh, params), devices.replicate(initial_state(config, params), mesh)
    root = named_key(seed, keys.DROPOUT)
    for number in range(2):
        batch = images.batch(number)
        jax.effects_barrier()
        counts.append(len(drawn))
        state, report = step(state, architectures, batch, 1e-3, jax.random.fold_in(root, number))
        jax.effects_barrier()
        counts.append(len(drawn))
        assert report.finite
    he_initialisation(architectures.graphs[0], jax.random.fold_in(named_key(seed, keys.RANDOM_INITIALISATION), 0))
    jax.effects_barrier()
    counts.append(len(drawn))
    new = [after - before for before, after in itertools.pairwise([0, *counts])]
    weights, *per_step, he = new
    assert weights > 5
    assert per_step == [2, len(args), 2, len(args)]  # a crop and a flip; one dropout in each network
    assert he > 5
    assert max(drawn.values()) == 1, [key for key, times in drawn.items() if times > 1]
