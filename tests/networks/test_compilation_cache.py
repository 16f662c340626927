"""A second process reads every program from the cache."""

import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ghn_jax.networks import enable_compilation_cache

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import jax
from network_args import small_args
from ghn_jax.networks import Runner, enable_compilation_cache, network_plan

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
runner = Runner()
print(ENABLE)
runner.warm([network_plan(small_args((("conv_1x1", 1), ("none", 0))))], (2, 32, 32, 3))
assert runner.report().compiled > 3
print(sum("cache_hits" in name for name in events), sum("cache_misses" in name for name in events))
"""


def start(folder: pathlib.Path, enable: str = "enable_compilation_cache()") -> tuple[str, int, int]:
    """Folder that was used, hits and misses of a fresh process, in which warnings are errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {
        "XDG_CACHE_HOME": str(folder),
        "GHN_JAX_CACHE": "",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-W", "error:Error reading persistent", "-c", PROGRAM.replace("ENABLE", enable)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    used, counts = run.stdout.strip().splitlines()
    hits, misses = map(int, counts.split())
    return used, hits, misses


def test_a_warm_start_compiles_nothing(tmp_path: pathlib.Path) -> None:
    used, hits, misses = start(tmp_path)
    assert used == str(tmp_path / "ghn_jax" / "xla")
    assert hits == 0
    assert misses > 6  # forward and backward programs
    assert start(tmp_path) == (used, misses, 0)


def test_entries_that_were_not_written_to_their_end_are_replaced(tmp_path: pathlib.Path) -> None:
    used, _, programs = start(tmp_path)
    entries = sorted(pathlib.Path(used).glob("*-cache"))
    entries[0].write_bytes(b"")
    entries[1].write_bytes(entries[1].read_bytes()[:-1])
    entries[2].write_bytes(entries[2].read_bytes()[:100])
    assert start(tmp_path) == (used, programs - 3, 3)
    assert start(tmp_path) == (used, programs, 0)


def test_the_library_itself_enables_nothing(tmp_path: pathlib.Path) -> None:
    used, hits, misses = start(tmp_path, enable="jax.config.jax_compilation_cache_dir")
    assert (used, hits, misses) == ("None", 0, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _settings_afterwards_as_before() -> Iterator[None]:
    names = [name for name in jax.config.values if "cache" in name]
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("_settings_afterwards_as_before")
def test_which_folder_is_used(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, else the environment's, else what JAX has been told, else the package's."""
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "package"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    assert enable_compilation_cache() == tmp_path / "package" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "told"))
    assert enable_compilation_cache() == tmp_path / "told"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "environment"))
    assert enable_compilation_cache() == tmp_path / "environment"
    assert enable_compilation_cache(tmp_path / "argument") == tmp_path / "argument"
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "argument")
    assert {path.name for path in tmp_path.iterdir()} == {"package", "told", "environment", "argument"}


@pytest.mark.usefixtures("_settings_afterwards_as_before")
def test_a_second_call_changes_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    resets: list[int] = []
    monkeypatch.setattr(compilation_cache, "reset_cache", lambda: resets.append(1))
    assert enable_compilation_cache(tmp_path) == enable_compilation_cache() == tmp_path
    assert resets == [1]


@pytest.mark.usefixtures("_settings_afterwards_as_before")
def test_a_folder_that_cannot_be_made_only_costs_time(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    before = jax.config.values["jax_compilation_cache_dir"]
    with caplog.at_level(logging.WARNING):
        assert enable_compilation_cache(tmp_path / "file" / "cache") is None
    assert "compiled programs cannot be kept in" in caplog.text
    assert jax.config.values["jax_compilation_cache_dir"] == before
