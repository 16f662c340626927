"""The names at the top of the package: all there, loaded late, and one version."""

import configparser
import pathlib
import subprocess
import sys

import pytest

import ghn_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ghn_jax.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(ghn_jax, name) is not None
    assert name in dir(ghn_jax)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ghn_jax.nothing


def test_importing_the_package_does_not_start_jax() -> None:
    code = "import sys, ghn_jax; print(ghn_jax.__version__, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [ghn_jax.__version__, "False"]


def test_the_version_stands_once() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: ghn_jax.__version__"
    assert ghn_jax.__version__.count(".") == 2
