"""One step against the same computed in one piece; what is compiled ahead; steps that are not finite."""

import dataclasses
import functools
import json
import pathlib
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from tiny_networks import IMAGE_SIZE, images_and_labels, tiny_batch, tiny_ghn

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.hypernet import GHN, init_ghn, predict_params
from ghn_jax.metatraining.failures import MOST_WRITTEN, TooManySkippedError, check_skipped, record_failure
from ghn_jax.metatraining.optimisation import OptimiserConfig, initial_state
from ghn_jax.metatraining.step import MetaStep
from ghn_jax.networks import TargetNetwork, network_plan
from ghn_jax.networks.runner import Runner
from ghn_jax.runs import devices

CONFIG = OptimiserConfig(clip=1e6)
RATE = 1e-3


def make_step(config: OptimiserConfig = CONFIG, **options: Any) -> tuple[MetaStep, Any]:
    ghn, variables = tiny_ghn()
    mesh = devices.arch_mesh(jax.devices()[:1])
    step = MetaStep(ghn, config, mesh, variables["params"], **options)
    return step, devices.replicate(initial_state(CONFIG, variables["params"]), mesh)


def logits_of(args: NetworkArgs, flat: Any, images: jax.Array) -> Any:
    """Of the whole network in one piece."""
    return TargetNetwork(args).apply({"params": traverse_util.unflatten_dict(flat)}, images)


def first_moments(state: Any) -> Any:
    """Adam's, after the first update: a tenth of the gradient it was fed."""
    (adam,) = (part for part in state.moments if isinstance(part, optax.ScaleByAdamState))
    return adam.mu


def test_the_loss_accuracy_and_gradient_norm_are_those_of_whole_networks() -> None:
    ghn, variables = tiny_ghn()
    batch, (images, labels) = tiny_batch(), images_and_labels()
    step, state = make_step(timed=True)
    _, report = step(state, batch, (images, labels), RATE, jax.random.key(0))
    losses, hits = [], []
    for args, flat in zip(batch.args, predict_params(ghn, variables, batch.graphs), strict=True):
        logits = logits_of(args, flat, images)
        losses.append(optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean())
        hits.append((logits.argmax(1) == labels).mean())
    np.testing.assert_allclose(report.loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose([report.local_losses[i] for i in range(2)], losses, rtol=1e-5)
    np.testing.assert_allclose(report.accuracy, np.mean(hits), rtol=1e-6)
    assert report.finite
    assert report.gradient_norm > 0
    assert 0 < report.ghn_seconds + report.nets_seconds <= report.seconds


def test_the_gradient_is_that_of_everything_in_one_piece() -> None:
    ghn, variables = tiny_ghn()
    batch, (images, labels) = tiny_batch(), images_and_labels()

    def loss(params: Any) -> jax.Array:
        losses = []
        for args, flat in zip(batch.args, predict_params(ghn, {"params": params}, batch.graphs), strict=True):
            logits = logits_of(args, flat, images)
            losses.append(optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean())
        return jnp.stack(losses).mean()

    expected = jax.grad(loss)(variables["params"])
    step, state = make_step()
    weights = jax.device_get(state.params)
    new, report = step(state, batch, (images, labels), RATE, jax.random.key(0))
    adam = first_moments(new)
    found = jax.tree.map(lambda m, w: np.asarray(m) / 0.1 - CONFIG.l2 * w, adam, weights)
    np.testing.assert_allclose(report.gradient_norm, optax.tree.norm(expected), rtol=1e-4)
    tolerance = 1e-4 * report.gradient_norm
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-3, atol=tolerance), found, expected)


def test_the_penalty_on_norms_is_added_to_loss_and_gradient() -> None:
    """Of the loss nothing else changes, and the gradient changes by that of the sum of norms of predicted tensors."""
    ghn, variables = tiny_ghn()
    batch, data, factor = tiny_batch(), images_and_labels(), 0.7

    def penalty(params: Any) -> jax.Array:
        networks = predict_params(ghn, {"params": params}, batch.graphs)
        norms = [jnp.linalg.norm(leaf.ravel()) for flat in networks for leaf in flat.values()]
        return factor * jnp.stack(norms).sum() / 2

    value, gradient = jax.value_and_grad(penalty)(variables["params"])
    found = []
    for norm_penalty in (0.0, factor):
        step, state = make_step(dataclasses.replace(CONFIG, norm_penalty=norm_penalty, l2=0.0))
        step.warm(batch, data[0].shape)
        new, report = step(state, batch, data, RATE, jax.random.key(0))
        found.append((report.loss, jax.tree.map(lambda m: np.asarray(m) / 0.1, first_moments(new))))
    (loss, plain), (more, penalised) = found
    np.testing.assert_allclose(more - loss, value, rtol=1e-4)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    jax.tree.map(
        lambda a, b, e: np.testing.assert_allclose(a - b, e, rtol=1e-3, atol=1e-4 * largest), penalised, plain, gradient
    )


def test_threads_and_preparation_change_nothing() -> None:
    data = images_and_labels()
    plain, state = make_step()
    expected, _ = plain(state, tiny_batch(4), data, RATE, jax.random.key(0))
    threaded, state = make_step(threads=2)
    threaded.warm(tiny_batch(4), data[0].shape)
    found, _ = threaded(state, tiny_batch(4), data, RATE, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(expected.params), jax.device_get(found.params))


def test_networks_that_need_much_start_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four networks two at a time: which two started first, and by the products that XLA counts which should."""
    batch, (images, labels) = tiny_batch(4), images_and_labels()
    step, state = make_step(threads=2)
    started, beside = list[Any](), threading.Barrier(2, timeout=60)
    original = Runner.loss_and_grads

    def noted(self: Runner, plan: Any, *arguments: Any, **options: Any) -> Any:
        started.append(plan)
        beside.wait()  # or one network may run before the other thread has said which it took
        return original(self, plan, *arguments, **options)

    monkeypatch.setattr(Runner, "loss_and_grads", noted)
    step(state, batch, (images, labels), RATE, jax.random.key(0))
    (_, variables), costs = tiny_ghn(), list[float]()
    for args, flat in zip(batch.args, predict_params(tiny_ghn()[0], variables, batch.graphs), strict=True):
        found: Any = jax.jit(functools.partial(logits_of, args)).lower(flat, images).compile().cost_analysis()
        costs.append(found["flops"])
    dearest = sorted(range(4), key=lambda i: -costs[i])
    assert costs[dearest[1]] > costs[dearest[2]]
    assert {id(plan) for plan in started[:2]} == {id(network_plan(batch.args[i])) for i in dearest[:2]}


def test_what_was_compiled_ahead_is_not_compiled_again() -> None:
    step, state = make_step()
    step.warm(tiny_batch(), (16, IMAGE_SIZE, IMAGE_SIZE, 3))
    (runner,) = step.runners
    compiled = runner.report().compiled
    assert compiled > 0
    step(state, tiny_batch(), images_and_labels(), RATE, jax.random.key(0))
    assert runner.report().compiled == compiled


def test_the_hypernetwork_compiles_nothing_in_a_step_that_was_warmed(caplog: pytest.LogCaptureFixture) -> None:
    """Also not a second time because the networks' gradients are committed to no device, as the weights are."""

    def compiled() -> set[str]:
        names = {record.getMessage().split(" with ")[0] for record in caplog.records}
        caplog.clear()
        return {name.removeprefix("Compiling ") for name in names if name.startswith("Compiling jit(")}

    programs = {"jit(fitted)", "jit(backward)", "jit(zeros)", "jit(take_rows)", "jit(add_rows)", "jit(apply_vjp)"}
    ghn = GHN(tiny_ghn()[0].config.replace(hid=20))  # a size of its own: nothing is compiled yet
    variables = init_ghn(ghn, jax.random.key(0))
    mesh = devices.arch_mesh(jax.devices()[:1])
    step = MetaStep(ghn, CONFIG, mesh, variables["params"])
    state = devices.replicate(initial_state(CONFIG, variables["params"]), mesh)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        step.warm(tiny_batch(), (16, IMAGE_SIZE, IMAGE_SIZE, 3))
        assert programs - {"jit(zeros)"} <= compiled()  # that one does not depend on the hypernetwork's size
        step(state, tiny_batch(), images_and_labels(), RATE, jax.random.key(0))
        assert not (programs | {"jit(broadcast_in_dim)", "jit(<lambda>)"}) & compiled()


def test_bfloat16_networks_come_close() -> None:
    exact, state = make_step()
    _, expected = exact(state, tiny_batch(), images_and_labels(), RATE, jax.random.key(0))
    rough, state = make_step(dtype=jnp.bfloat16)
    _, found = rough(state, tiny_batch(), images_and_labels(), RATE, jax.random.key(0))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=0.05)
    assert found.loss != expected.loss


def test_a_step_that_is_not_finite_is_left_out_and_written_down(tmp_path: pathlib.Path) -> None:
    step, state = make_step()
    images, labels = images_and_labels()
    before = jax.device_get(state.params)
    new, report = step(state, tiny_batch(), (images.at[0, 0, 0, 0].set(jnp.nan), labels), RATE, jax.random.key(0))
    assert not report.finite
    assert int(new.skipped) == 1
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(new.params))
    path = record_failure(tmp_path, 7, new.params, tiny_batch(), report, seed=3)
    data = json.loads(path.read_text())
    assert (data["step"], data["seed"], data["loss"]) == (7, 3, "nan")
    assert [net["args"] for net in data["networks"]] == [args.to_json() for args in tiny_batch().args]
    with np.load(path.with_name(data["weights"])) as archive:
        flat = traverse_util.flatten_dict(before)
        assert {tuple(name.split("/")) for name in archive.files} == set(flat)
    later = [
        record_failure(tmp_path, number, new.params, tiny_batch(), report, seed=3)
        for number in range(100, 100 + MOST_WRITTEN)
    ]
    assert len(list(path.parent.iterdir())) == 2 * MOST_WRITTEN
    assert later[-1] == path.with_name(f"step-{98 + MOST_WRITTEN}-process-0.json")
    check_skipped(1, 19, 0.0, path)
    check_skipped(1, 20, 0.05, path)
    with pytest.raises(TooManySkippedError, match=rf"2 of 20 .* {path}"):
        check_skipped(2, 20, 0.05, path)
