"""A library does not change its process: it neither prints nor touches log levels, flags, signals or jax.config."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "ghn_jax").rglob("*.py"))
COMMANDS_CALL = {"use_compilation_cache", "enable_compilation_cache", "divide_cores"}
"""Functions whose names say that they set up a process; only commands call them."""

SNAPSHOT = """
import importlib, logging, os, signal, sys, warnings
import jax, absl.flags, absl.logging, orbax.checkpoint
def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    levels = {name: logging.getLogger(name).level for name in ("", "absl", "jax", "ghn_jax")}
    held = {name: len(logging.getLogger(name).handlers) for name in ("", "ghn_jax")}
    config = {name: value for name, value in jax.config.values.items()}
    return dict(os.environ), handlers, levels, held, absl.flags.FLAGS.is_parsed(), config, sys.excepthook
"""


def calls(tree: ast.AST) -> list[tuple[str, str]]:
    """(enclosing function, what is called) of every call."""
    found: list[tuple[str, str]] = []

    def walk(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            found.append((function, ast.unparse(node.func)))
        for child in ast.iter_child_nodes(node):
            walk(child, function)

    walk(tree, "")
    return found


def test_only_what_is_named_for_it_sets_up_a_process() -> None:
    forbidden = ("print", "basicConfig", "setLevel", "set_verbosity", "mark_as_parsed", "putenv", "addHandler")
    wrong = []
    for path in FILES:
        for function, called in calls(ast.parse(path.read_text())):
            name = called.rpartition(".")[2]
            sets_jax = called.endswith("config.update") and "jax" in called and function not in COMMANDS_CALL
            if name in forbidden or sets_jax:
                wrong.append(f"{path.relative_to(ROOT)}: {called} in {function or 'the module'}")
    assert wrong == []


def test_importing_everything_changes_nothing() -> None:
    names = [path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__") for path in FILES]
    modules = [name.replace("/", ".") for name in names]
    code = (
        f"{SNAPSHOT}import grain, h5py, scipy, sklearn.datasets, tensorboardX, tensorflow_datasets, tyro\n"
        "before = state()\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "for number, pair in enumerate(zip(before, state(), strict=True)): assert pair[0] == pair[1], number\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
