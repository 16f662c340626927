"""A second process reads every program from the cache."""

import os
import pathlib
import subprocess
import sys

import jax

from ghn_jax.networks import enable_compilation_cache

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import jax
from network_args import small_args
from ghn_jax.networks import Runner, enable_compilation_cache, network_plan

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
print(enable_compilation_cache())
runner = Runner()
runner.warm([network_plan(small_args((("conv_1x1", 1), ("none", 0))))], (2, 32, 32, 3))
assert runner.report().compiled > 3
print(sum("cache_hits" in name for name in events), sum("cache_misses" in name for name in events))
"""


def start(folder: pathlib.Path) -> tuple[str, int, int]:
    """Folder that was used, hits and misses of a fresh process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {
        "XDG_CACHE_HOME": str(folder),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    used, counts = run.stdout.strip().splitlines()
    hits, misses = map(int, counts.split())
    return used, hits, misses


def test_a_warm_start_compiles_nothing(tmp_path):
    used, hits, misses = start(tmp_path)
    assert used == str(tmp_path / "ghn_jax" / "xla")
    assert hits == 0
    assert misses > 6  # forward and backward programs
    assert start(tmp_path) == (used, misses, 0)


def test_the_environments_folder_comes_first(tmp_path, monkeypatch):
    before = {name: getattr(jax.config, name) for name in ("jax_compilation_cache_dir",)}
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "chosen"))
    try:
        assert enable_compilation_cache() == tmp_path / "chosen"
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "chosen")
        assert (tmp_path / "chosen").is_dir()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
