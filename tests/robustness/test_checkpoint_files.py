"""Checkpoints of hypernetworks that are damaged or hostile: as good as undamaged, or a ValueError with their name."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from robustness.damage import damaged_copies
from robustness.guard import counts, faults, read_all
from small_graphs import TINY

from ghn_jax.hypernet import GHN, export_release_checkpoint, init_ghn, load_ghn, save_checkpoint, save_file

CONFIG = TINY.replace(max_shape=(4, 4, 2, 2), hid=4, num_classes=3)
FORMATS = ("release.pt", "folder", "file.npz")


def read(path: pathlib.Path) -> Any:
    loaded = load_ghn(path)
    return loaded.config, jax.tree.map(np.asarray, loaded.variables)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with one hypernetwork in every format."""
    folder = tmp_path_factory.mktemp("good")
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_ghn(GHN(CONFIG), jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
    for name, save in zip(FORMATS, (export_release_checkpoint, save_checkpoint, save_file), strict=True):
        save(folder / name, CONFIG, variables)
    return folder


def fields(file: pathlib.Path) -> list[range]:
    """Where sizes stand: the end of a zip with its list of members, and the first header."""
    size = file.stat().st_size if file.is_file() else 0
    return [range(64), range(max(0, size - 2000), size), range(max(0, size - 64), size)] if size else []


def check(good: pathlib.Path, into: pathlib.Path, count: int, seed: int) -> dict[str, int]:
    outcomes = read_all(read, good, damaged_copies(good, into, count, seed, fields(good)))
    assert not faults(outcomes)
    return counts(outcomes)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_noticed(name: str, good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert check(good / name, tmp_path, 12, seed=1)["refused"] > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize(("name", "count"), [("release.pt", 200), ("file.npz", 150), ("folder", 200)])
def test_much_damage_is_noticed(name: str, count: int, seed: int, good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ended = check(good / name, tmp_path, count, seed)
    assert sum(ended.values()) == count
    print(name, seed, ended)
