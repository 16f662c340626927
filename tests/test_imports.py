"""Imports go only along the arrows of the package's layout, and heavy packages are loaded late or not at all."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "ghn_jax"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
ALL_FILES = sorted(path for folder in (PACKAGE, "experiments", "tests") for path in (ROOT / folder).rglob("*.py"))

# What the files of a package may import besides their own package.
LEAVES = ("downloads", "executables", "fields", "files", "keys", "text_tables", "threads", "xla_options")
"""Single modules at the top that import nothing of ours and that everything may import."""

_LIBRARY = ("graphs", "deepnets", "networks", "hypernet", "images", "runs")
ARROWS = {
    "graphs": (),
    "deepnets": ("graphs",),
    "networks": ("graphs", "deepnets"),
    "hypernet": ("graphs",),
    "images": (),
    "runs": (),
    "evaluation": _LIBRARY,
    "metatraining": (*_LIBRARY, "evaluation"),
    "training": (*_LIBRARY, "evaluation"),
    "properties": (*_LIBRARY, "evaluation", "training"),
    "detection": ("graphs", "images", "runs"),
}
LATE = ("matplotlib", "networkx")
NEVER = ("torch", "tensorflow", "torchvision", "keras")


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Every import of a file, wherever it stands: dotted names down to what is imported, and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def at_module_level(path: pathlib.Path) -> set[str]:
    """Top-level packages that are imported when the file is: not in functions, not for type checkers only."""
    found: set[str] = set()
    pending: list[ast.AST] = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    return found


def inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def violations(path: pathlib.Path) -> Iterator[str]:
    """Imports of a file of the package that no arrow allows, with what would be allowed."""
    own = path.relative_to(ROOT / PACKAGE).parts[0]
    allowed = [f"{PACKAGE}.{name}" for name in (own, *LEAVES, *ARROWS[own])]
    for name, line in imported(path):
        if name.startswith("."):
            yield f"{relative(path)}:{line} imports {name}: use absolute imports"
        elif inside(name, PACKAGE) and not any(inside(name, module) for module in allowed):
            yield f"{relative(path)}:{line} imports {name}; {own} may import {', '.join(allowed)}"


def test_imports_follow_the_arrows():
    in_packages = [path for path in FILES if path.parent != ROOT / PACKAGE]
    assert [found for path in in_packages for found in violations(path)] == []


def test_every_package_has_its_arrows():
    packages = {path.name for path in (ROOT / PACKAGE).iterdir() if (path / "__init__.py").exists()}
    assert packages <= ARROWS.keys()


def test_jraph_is_imported_in_one_file():
    assert len({relative(path) for path in FILES for name, _ in imported(path) if inside(name, "jraph")}) == 1


def test_other_frameworks_are_imported_nowhere():
    found = [(relative(path), name) for path in ALL_FILES for name, _ in imported(path)]
    assert [(path, name) for path, name in found if any(inside(name, framework) for framework in NEVER)] == []


def test_pictures_are_imported_late():
    assert [relative(path) for path in FILES if at_module_level(path) & set(LATE)] == []


def test_importing_everything_loads_neither_pictures_nor_other_frameworks():
    modules = [relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in FILES]
    names = (*LATE, *NEVER)
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
    code += f"print(*(name for name in {names} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_walk_finds_a_forbidden_import(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / PACKAGE / "networks" / "layers.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import jax\nfrom ghn_jax.graphs import ArchGraph\nfrom ghn_jax.deepnets.genotype import Genotype\n"
        "from ghn_jax.hypernet import predict\nimport ghn_jax.metatraining\nfrom . import plan\n"
    )
    lines = [found.partition(" ")[0].rpartition(":")[2] for found in violations(path)]
    assert lines == ["4", "5", "6"]


def test_the_walk_sees_what_it_should(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "import matplotlib.pyplot\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "try:\n    from ghn_jax.graphs import draw\nexcept ImportError:\n    pass\n"
        "def late():\n    import networkx as nx\n    from . import other\n"
    )
    names = {name for name, _ in imported(path)}
    assert names >= {"matplotlib.pyplot", "torch", "ghn_jax.graphs.draw", "networkx", "..other"}
    assert at_module_level(path) == {"typing", "matplotlib", "ghn_jax"}
