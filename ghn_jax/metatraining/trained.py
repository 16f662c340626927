"""Hypernetworks that runs have trained."""

import os
import pathlib

import jax

from ghn_jax.hypernet import GHN, PretrainedGHN, init_ghn, load_ghn
from ghn_jax.metatraining.config import load_config
from ghn_jax.metatraining.optimisation import initial_state
from ghn_jax.runs.checkpoints import Checkpoints


def load_trained(source: str | os.PathLike[str]) -> PretrainedGHN:
    """The hypernetwork of a run's folder (its best checkpoint), or anything that `hypernet.load_ghn` takes.

    Raises:
      ValueError: for a run without checkpoints, or where `load_ghn` does.
    """
    folder = pathlib.Path(source)
    if not (folder / "checkpoints").is_dir():
        return load_ghn(source)
    config = load_config(folder)
    ghn = GHN(config.ghn)
    like = initial_state(config.optimiser, init_ghn(ghn, jax.random.key(0))["params"])
    checkpoints = Checkpoints(folder)
    try:
        best = checkpoints.best()
        if best is None:
            raise ValueError(f"{folder} holds no checkpoint yet")
        state, _ = checkpoints.restore(best, like)
    finally:
        checkpoints.close()
    return PretrainedGHN(ghn, {"params": state.params})
