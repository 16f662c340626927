"""Cache entries are made once, repaired when damaged, and never needed to go on."""

import logging
import os
import pathlib
import subprocess
import sys
from typing import BinaryIO

import kill_points
import pytest

from ghn_jax.files import cache_folder, cached


def write_text(file: BinaryIO, value: str) -> None:
    file.write(value.encode())


def read_text(file: BinaryIO) -> str:
    return file.read().decode()


def cached_text(path: pathlib.Path, value: str) -> tuple[str, bool]:
    """The cached text, and whether it was made."""
    made: list[str] = []

    def make() -> str:
        made.append(value)
        return value

    return cached(path, make, write_text, read_text), bool(made)


def test_a_cached_value_is_made_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "entry"
    assert cached_text(path, "value") == ("value", True)
    assert cached_text(path, "other") == ("value", False)
    assert [file.name for file in path.parent.iterdir()] == ["entry"]


def test_every_damage_to_a_cache_entry_is_noticed_and_repaired(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "entry"
    cached_text(path, "value")
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole + b"x", bytes(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        assert cached_text(path, "value") == ("value", True)
        assert path.read_bytes() == whole
    assert sum("is damaged" in record.message for record in caplog.records) == len(damaged)
    path.unlink()
    os.mkfifo(path)
    assert cached_text(path, "value") == ("value", True)
    assert path.read_bytes() == whole
    assert "it is no regular file" in caplog.text


KILLED_CACHE = """
import pathlib, shutil, sys
import kill_points
from ghn_jax.files import cached

place = pathlib.Path("place")
final = place / "entry"

def write(file, value):
    file.write(value[:5])
    file.flush()
    sys.audit(kill_points.STEP)
    file.write(value[5:])

def entry(make):
    return cached(final, make, write, lambda file: file.read())

def prepare():
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if {damaged}:
        final.write_bytes(b"")

def act():
    assert entry(lambda: b"the value") == b"the value"

def check(number):
    made = []
    assert entry(lambda: made.append(1) or b"the value") == b"the value"
    assert entry(lambda: 1 / 0) == b"the value"
    if made:
        assert [path.name for path in place.iterdir()] == ["entry"], (number, list(place.iterdir()))

print(kill_points.kill_everywhere(prepare, act, check))
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_entry_is_whole_wherever_its_writer_is_killed(tmp_path: pathlib.Path, damaged: bool) -> None:
    (operations,) = kill_points.run(KILLED_CACHE.format(damaged=damaged), tmp_path)
    assert int(operations) >= 6


AT_ONCE = """
import os, pathlib, sys, time
from ghn_jax.files import cached

def write(file, value):
    for place in range(0, len(value), 1000):
        file.write(value[place:place + 1000])
        file.flush()

def make():
    pathlib.Path(f"making-{os.getpid()}").touch()
    while len(list(pathlib.Path().glob("making-*"))) < 2:
        time.sleep(0.001)
    return bytes(range(250)) * 4000

for _ in range(2):
    assert cached(pathlib.Path("cache/entry"), make, write, lambda file: file.read()) == bytes(range(250)) * 4000
"""


def test_two_processes_that_make_the_same_entry_end_well(tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(kill_points.ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", AT_ONCE], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    assert len(list(tmp_path.glob("making-*"))) == 2  # both were at it
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["entry"]


@pytest.mark.parametrize("fault", ["no folder", "full", "read-only"])
def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    path = tmp_path / "cache" / "entry"
    if fault == "no folder":
        path.parent.write_text("a file")
    elif fault == "full":

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
    elif os.geteuid() == 0:
        monkeypatch.setattr(os, "replace", _refuse)  # the superuser may write anywhere
    else:
        path.parent.mkdir(mode=0o500)
    with caplog.at_level(logging.WARNING):
        assert cached_text(path, "value") == ("value", True)
        assert cached_text(path, "value") == ("value", True)
    assert "cannot be written" in caplog.text
    assert str(path) in caplog.text
    assert fault == "no folder" or list(path.parent.iterdir()) == []


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GHN_JAX_CACHE": "/own", "XDG_CACHE_HOME": "/caches"}, "/own/images"),
        ({"GHN_JAX_CACHE": "", "XDG_CACHE_HOME": "/caches"}, "/caches/ghn_jax/images"),
        ({"GHN_JAX_CACHE": "~/own"}, "/home/someone/own/images"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/ghn_jax/images"),
        ({"XDG_CACHE_HOME": "caches"}, "/home/someone/.cache/ghn_jax/images"),
        ({}, "/home/someone/.cache/ghn_jax/images"),
    ],
)
def test_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, variables: dict[str, str], expected: str
) -> None:
    for name in ("GHN_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert cache_folder("images") == pathlib.Path(expected)
    monkeypatch.setenv("GHN_JAX_CACHE", "own")
    assert cache_folder() == tmp_path / "own"
    assert list(tmp_path.iterdir()) == []
