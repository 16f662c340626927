"""Many devices: shares, and runs on 4 devices and in 2 processes against one device."""

import pathlib
import socket

import jax
import numpy as np
import pytest
from tiny_runs import finish, start, weights

from ghn_jax.runs import devices
from ghn_jax.runs.metrics import read_metrics

STEPS = 4
OPTIONS = (f"--steps={STEPS}", "--meta-batch=3", "--num-architectures=3", "--learning-rate=2e-4")
"""Three networks: one of 4 devices has none, one of 2 has two. Adam's first updates of a weight have the size of the
learning rate, and the sign of a gradient that is all rounding is chance, so that rate is small."""


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("one")
    finish(start(folder, *OPTIONS))
    return folder


def same_learning(one: pathlib.Path, other: pathlib.Path) -> None:
    """Losses and weights as close as the order of summation allows."""
    rows = [read_metrics(folder) for folder in (one, other)]
    assert len(rows[0]) == len(rows[1]) == STEPS
    for first, second in zip(*rows, strict=True):
        for key, tolerance in (("loss", 1e-5), ("accuracy", 1e-5), ("gradient_norm", 1e-4)):
            np.testing.assert_allclose(first[key], second[key], rtol=tolerance, err_msg=key)
    first, second = weights(one), weights(other)
    for name, array in first.items():
        np.testing.assert_allclose(array, second[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_four_devices_learn_what_one_learns(one_device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    output = finish(start(tmp_path, *OPTIONS, XLA_FLAGS="--xla_force_host_platform_device_count=4"))
    assert "on 4 devices" in output
    same_learning(one_device, tmp_path)


def test_two_processes_learn_what_one_learns(one_device: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = ("--distributed", f"--coordinator=127.0.0.1:{port}", "--num-processes=2", "--checkpoint-minutes=0")
    processes = [start(tmp_path, *OPTIONS, *common, f"--process-id={place}") for place in range(2)]
    outputs = [finish(process) for process in processes]
    assert "on 2 devices" in outputs[0]
    same_learning(one_device, tmp_path)


def test_a_replicated_tree_is_copied_back_and_stacked() -> None:
    mesh = devices.arch_mesh(jax.devices()[:1])
    tree = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    everywhere = devices.replicate(tree, mesh)
    copy = devices.copy_on(everywhere, jax.devices()[0])
    np.testing.assert_array_equal(copy["w"], tree["w"])
    stacked = devices.stack([copy], mesh)
    np.testing.assert_array_equal(stacked["w"], tree["w"][None])
    assert devices.local_places(mesh) == [0]
