"""Damaged files of GHN-3's published form and folders of safetensors: nothing runs, nothing crashes, errors have names.

The published form has no sums: of numbers that are damaged but finite nothing can be known, so a file that differs from
the good one in them alone is read. Ours have a digest of every array, so that nothing is.
"""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from hypernet.test_release_forms import GHN3, published, variables_of
from joblib_files import write_joblib
from robustness.damage import damaged_copies
from robustness.guard import counts, faults, read_all

from ghn_jax.hypernet import load_ghn, save_pretrained

pytest.importorskip("safetensors")

CONFIG = GHN3.replace(max_shape=(2, 2, 11, 11))
MUCH = 500
"""Damaged copies of each form in the slow test."""


def read_weights(path: pathlib.Path) -> Any:
    loaded = load_ghn(path)
    return loaded.config, jax.tree.map(np.asarray, loaded.variables)


def read_shapes(path: pathlib.Path) -> Any:
    loaded = load_ghn(path)
    return loaded.config, jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), loaded.variables)


def good_file(form: str, folder: pathlib.Path) -> pathlib.Path:
    path = folder / form
    if form == "ghn.pt":
        write_joblib(path, published(CONFIG))
    else:
        save_pretrained(path, CONFIG, variables_of(CONFIG))
        (path / "README.md").unlink()  # nobody reads it
    return path


def ends(form: str, count: int, seed: int, folder: pathlib.Path) -> dict[str, int]:
    good = good_file(form, folder)
    copies = damaged_copies(good, folder / "bad", count, seed)
    outcomes = read_all(read_shapes if form == "ghn.pt" else read_weights, good, copies)
    assert not faults(outcomes)
    return counts(outcomes)


@pytest.mark.parametrize("form", ["ghn.pt", "folder"])
def test_damage_ends_in_an_error_with_a_name(form: str, tmp_path: pathlib.Path) -> None:
    assert ends(form, 16, 1, tmp_path)["refused"] > 4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ghn.pt", "folder"])
def test_much_damage_ends_in_an_error_with_a_name(form: str, tmp_path: pathlib.Path) -> None:
    found = ends(form, MUCH, 2, tmp_path)
    assert sum(found.values()) == MUCH
    print(form, found)
