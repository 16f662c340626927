"""Networks side by side: the same curve as plain Flax and optax, resuming, whole models, what is refused."""

import dataclasses
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from tiny_networks import IMAGE_SIZE, tiny_batch

from ghn_jax.deepnets import NetworkArgs, network_graph
from ghn_jax.graphs.tracing import trace
from ghn_jax.images import eval_batches, load_images, train_batches
from ghn_jax.images.augment import cutout
from ghn_jax.networks import TargetNetwork
from ghn_jax.networks.zoo.resnet import ResNet
from ghn_jax.runs.metrics import read_metrics
from ghn_jax.training import Given, Net, NetOptimiserConfig, NetTrainConfig, start_params, train_networks
from ghn_jax.training.config import geometric

CONFIG = NetTrainConfig(steps=20, batch_size=16, test_images=64, test_batch=32, curve=(5,))
BATCH = tiny_batch()


@pytest.fixture(scope="module")
def images() -> Any:
    return load_images("digits", IMAGE_SIZE)


def nets(*starts: str) -> list[Net]:
    pairs = zip(BATCH.args, BATCH.graphs, strict=True)
    return [
        Net(f"{i}-{start}", args, graph, start_params(start, graph, jax.random.key(i), Given()))
        for i, (args, graph) in enumerate(pairs)
        for start in starts
    ]


@pytest.mark.parametrize(("number", "start"), [(0, "he"), (0, "torch"), (1, "he"), (1, "torch")])
def test_layer_by_layer_is_as_plain_flax_and_optax(
    number: int, start: str, images: Any, tmp_path: pathlib.Path
) -> None:
    """Losses of 20 updates to 1e-5. At larger rates rounding grows: one of these networks then parts after a few."""
    config = dataclasses.replace(CONFIG, optimiser=NetOptimiserConfig(learning_rate=5e-3))
    net = next(net for net in nets(start) if net.name == f"{number}-{start}")
    (curve,), trained = train_networks([net], images, config, tmp_path)
    ours = [row["loss"] for row in read_metrics(tmp_path) if row["kind"] == "train"]
    whole = optax.chain(
        optax.clip_by_global_norm(5.0),
        optax.add_decayed_weights(3e-4),
        optax.sgd(optax.cosine_decay_schedule(5e-3, 20), momentum=0.9),
    )
    assert isinstance(net.model, NetworkArgs)
    module: Any = TargetNetwork(net.model)
    params: Any = traverse_util.unflatten_dict(dict(net.params))
    state = whole.init(params)

    def loss(params: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
        logits: Any = module.apply({"params": params}, pixels)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    slope, losses = jax.jit(jax.value_and_grad(loss)), []
    batches = train_batches(images, config.batch_size, config.seed)
    for step in range(config.steps):
        value, gradient = slope(params, *batches.batch(step))
        losses.append(float(value))
        updates, state = whole.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(ours, losses, rtol=1e-5)
    expected: Any = traverse_util.flatten_dict(params)
    for path, leaf in trained[net.name].items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-4, atol=1e-5, err_msg=str(path))
    right = [
        (module.apply({"params": params}, x).argmax(axis=1) == y).mean()
        for x, y in eval_batches(images, "test", 32, 64)
    ]
    assert curve.steps == (0, 5, 20)
    assert curve.top1[-1] == pytest.approx(float(np.mean(right)), abs=1 / 64)
    assert curve.skipped == 0


def test_a_run_that_was_stopped_goes_on_bit_for_bit(images: Any, tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(CONFIG, steps=8, checkpoint_minutes=0.0, cutout=8)
    chosen = nets("he")
    whole, expected = train_networks(chosen, images, config, tmp_path / "whole")

    class Stopping:
        """Images that end in the middle of the run."""

        every = 1e9

        def say(self, text: str) -> None:
            if text.startswith("after 5"):
                raise InterruptedError

        def progress(self, text: str) -> None:
            pass

    with pytest.raises(InterruptedError):
        train_networks(chosen, images, config, tmp_path / "parts", Stopping())
    parts, found = train_networks(chosen, images, config, tmp_path / "parts")
    assert parts == whole
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    again, _ = train_networks(chosen, images, config, tmp_path / "parts")
    assert again == whole  # what was measured after the last update included


def test_a_model_of_its_own_is_trained_whole(images: Any, tmp_path: pathlib.Path) -> None:
    model = ResNet((1, 1), num_classes=10, small_images=True, bottleneck=False)
    graph = trace(model, (IMAGE_SIZE, IMAGE_SIZE, 3))
    net = Net("resnet", model, graph, start_params("he", graph, jax.random.key(0), Given()))
    config = dataclasses.replace(CONFIG, steps=30, bn="running", curve=(), test_images=None)
    (curve,), trained = train_networks([net], images, config, tmp_path)
    assert curve.top1[-1] > 0.4 > curve.top1[0]
    assert {path: leaf.shape for path, leaf in trained["resnet"].items()} == {p.path: p.shape for p in graph.params}


class WithDropout(nn.Module):
    """Dropout, a norm with running statistics, and a leaf that no graph lists."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean(axis=(1, 2)))
        return nn.Dense(10)(x * self.param("gain", nn.initializers.constant(2.0), ()))


def test_a_model_trains_with_dropout_and_keeps_its_statistics(images: Any, tmp_path: pathlib.Path) -> None:
    model = WithDropout()
    graph = trace(model, (IMAGE_SIZE, IMAGE_SIZE, 3))
    net = Net("own", model, graph, start_params("he", graph, jax.random.key(0), Given()))
    config = dataclasses.replace(CONFIG, steps=3, optimiser=NetOptimiserConfig(method="adam"), bn="running", curve=())
    _, trained = train_networks([net], images, config, tmp_path)
    assert trained["own"]["gain",] != 2.0
    other = dataclasses.replace(config, seed=1)
    _, again = train_networks([net], images, other, tmp_path / "other")
    assert not np.array_equal(trained["own"]["Dense_0", "kernel"], again["own"]["Dense_0", "kernel"])


def test_auxiliary_heads_and_drop_path_train(images: Any, tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(CONFIG, steps=3, auxiliary_weight=0.4, drop_path=0.2, curve=())
    args = BATCH.args[1].replace(n_cells=3, image_size=32)
    graph = network_graph(args, "aux")
    net = Net("aux", args, graph, start_params("he", graph, jax.random.key(0), Given()))
    _, trained = train_networks([net], load_images("digits", 32), config, tmp_path)
    heads = [path for path in trained["aux"] if path[0] == "auxiliary_head"]
    assert heads
    assert all(np.isfinite(leaf).all() for leaf in trained["aux"].values())


@pytest.mark.parametrize("bn", ["batch", "reestimated"])
def test_both_statistics_measure_accuracy(bn: Any, images: Any, tmp_path: pathlib.Path) -> None:
    more = {"bn_batches": 3} if bn == "reestimated" else {}
    config = dataclasses.replace(CONFIG, steps=2, curve=(), bn=bn, **more)
    curves, _ = train_networks(nets("he"), images, config, tmp_path)
    assert all(0 <= top1 <= 1 for curve in curves for top1 in curve.top1)


def test_cutout_cuts_one_square_of_the_side() -> None:
    found = np.asarray(cutout(jax.random.key(0), jnp.ones((200, 16, 16, 3)), 16))  # 8 pixels at this size
    assert (found[..., 0] == found[..., 2]).all()
    zeros = (found[..., 0] == 0).sum(axis=(1, 2))
    assert zeros.max() == 64
    assert zeros.min() >= 16  # cut by two borders
    for image in found[:20, ..., 0]:
        rows, columns = np.nonzero(image == 0)
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_points_of_a_curve_grow() -> None:
    assert geometric(100) == (10, 14, 20, 28, 40, 57, 80, 100)
    assert geometric(5) == (5,)


def test_what_makes_no_sense_is_refused(images: Any, tmp_path: pathlib.Path) -> None:
    twice = [nets("he")[0]] * 2
    with pytest.raises(ValueError, match="names of their own"):
        train_networks(twice, images, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="curve must lie within the 20 updates, got 30"):
        dataclasses.replace(CONFIG, curve=(30,))
    with pytest.raises(ValueError, match="bn_batches = 7 has no effect with bn 'batch'"):
        dataclasses.replace(CONFIG, bn_batches=7)
    model = ResNet((1,), num_classes=10, small_images=True, bottleneck=False)
    net = Net("a", model, BATCH.graphs[0], {})
    with pytest.raises(ValueError, match="drop_path and auxiliary heads are for networks of DeepNets-1M"):
        train_networks([net], images, dataclasses.replace(CONFIG, auxiliary_weight=0.4), tmp_path)
