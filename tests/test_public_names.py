"""The names at the top of the package: all there, loaded late, and one version."""

import ast
import configparser
import importlib
import pathlib
import subprocess
import sys

import pytest

import ghn_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = (
    "ghn_jax.deepnets",
    "ghn_jax.detection",
    "ghn_jax.evaluation",
    "ghn_jax.graphs",
    "ghn_jax.graphs.tracing",
    "ghn_jax.hypernet",
    "ghn_jax.images",
    "ghn_jax.metatraining",
    "ghn_jax.networks",
    "ghn_jax.networks.zoo",
    "ghn_jax.properties",
    "ghn_jax.runs",
    "ghn_jax.training",
)


@pytest.mark.parametrize("name", ghn_jax.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(ghn_jax, name) is not None
    assert name in dir(ghn_jax)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_what_it_imports_for_others(package: str) -> None:
    """Every name of ``__all__`` is there, stands there once, and is all that the package's own file imports."""
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert len(set(module.__all__)) == len(module.__all__)
    assert module.__file__ is not None
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(module.__all__)


def test_every_package_of_the_library_is_in_the_list() -> None:
    folders = {path.parent.name for path in (ROOT / "ghn_jax").glob("*/__init__.py")}
    assert {f"ghn_jax.{name}" for name in folders} <= set(PACKAGES)


@pytest.mark.parametrize("module", ["ghn_jax.deepnets", "ghn_jax.deepnets.sources", "ghn_jax.deepnets.workers"])
def test_drawing_architectures_does_not_import_jax(module: str) -> None:
    """Processes that only draw stay small and start at once."""
    code = f"import sys, {module}; print('jax' in sys.modules, 'ghn_jax.deepnets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


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
