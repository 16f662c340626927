"""Predicts the parameters of any JAX model and writes them as a checkpoint.

  python experiments/predict_params.py --model=ghn_jax.networks.zoo:create --input=32,32,3 --out=runs/resnet18 \
      --arguments='{"name": "resnet18", "num_classes": 10, "small_images": true}'

NAME in MODULE is a Flax model or something that returns one when called with `--arguments` (a class, a function). nnx
classes that take `rngs` get them. The folder OUT gets the variables (orbax); a table tells layer by layer what was
predicted and what keeps the model's own initialisation, and why. Seconds to a minute for a ResNet on two cores.
"""

import running

if __name__ == "__main__":
    running.quiet_start()

import contextlib
import dataclasses
import importlib
import inspect
import json
import math
import pathlib
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import tyro

from ghn_jax.fields import SEED, check_fields
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.tracing import trace
from ghn_jax.graphs.tracing.frontends import path_of
from ghn_jax.graphs.tracing.input_layout import batch_axes
from ghn_jax.hypernet.api import resolve_ghn
from ghn_jax.hypernet.grouping import CLASSIFIER_ROLES
from ghn_jax.initialising import init_like
from ghn_jax.networks import enable_compilation_cache
from ghn_jax.text_tables import aligned

MOST_NUMBERS = 100_000_000
"""Of one image."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Command line.

    Attributes:
      model: MODULE:NAME of a Flax linen or nnx model, or of what makes one.
      input: shape of one image, H,W,C, or with its axes in the order of `--layout`.
      out: folder of the checkpoint; must not exist yet.
      ghn: hypernetwork: a folder, a file, a packaged or public name (see `load_ghn`).
      arguments: JSON object, arguments of what makes the model.
      call_kwargs: JSON object, further arguments of the model's call.
      layout: axes of `--input`, HWC or CHW; needed where its shape leaves open which are the channels.
      seed: of the model's own initialisation.
    """

    model: str
    input: str
    out: pathlib.Path
    ghn: str | None = None
    arguments: str = "{}"
    call_kwargs: str = "{}"
    layout: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, {"seed": SEED})
        if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", self.model):
            raise ValueError(f"--model must be MODULE:NAME, got {self.model!r}")
        image_shape(self.input)
        for option in ("arguments", "call_kwargs"):
            json_object(f"--{option}", getattr(self, option))
        if self.layout is not None:
            batch_axes((1, 1, 1), self.layout)


def json_object(option: str, text: str) -> dict[str, Any]:
    """The object that JSON text describes; raises ValueError naming the option for other text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{option} must be a JSON object, got {text[:80]!r}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{option} must be a JSON object such as {{}}, got {text[:80]!r}")
    return found


@contextlib.contextmanager
def code_of(model: str, what: str) -> Generator[None]:
    """What a model's own code raises, of whatever kind, becomes a ValueError that names the model."""
    try:
        yield
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(f"--model {model!r} {what}: {kind}{said}") from error


def load_model(name: str, arguments: Mapping[str, Any], seed: int) -> Any:
    """The model that MODULE:NAME stands for; raises ValueError if there is none."""
    module, _, attribute = name.partition(":")
    with code_of(name, "cannot be loaded"):
        found = getattr(importlib.import_module(module), attribute)
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        if arguments:
            raise ValueError(f"--arguments have no effect: --model {name!r} is no class or function")
        return found
    with code_of(name, "cannot be made with --arguments"):
        if "rngs" in inspect.signature(found.__init__ if inspect.isclass(found) else found).parameters:
            from flax import nnx

            arguments = {"rngs": nnx.Rngs(seed), **arguments}
        return found(**arguments)


def image_shape(text: str) -> tuple[int, ...]:
    """Shape of one image from H,W,C; raises ValueError naming bad text."""
    try:
        shape = tuple(int(size) for size in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"--input must be three positive sizes such as 32,32,3, got {text!r}")
    return shape


def report(graph: ArchGraph, predicted: frozenset[Path], arrays: Mapping[str, Any]) -> str:
    """One line a parameter leaf: layer, shape, predicted or why not, Euclidean norm; then totals."""
    reasons = {spec.path: "kept: classifier of another number of classes" for spec in graph.params}
    reasons.update({leaf.path: f"kept: {leaf.reason}" for leaf in graph.kept})
    params = arrays.get("params", arrays)
    leaves = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}
    leaves = {path: leaf for path, leaf in leaves.items() if path in reasons}
    rows: list[Sequence[str]] = [("layer", "shape", "source", "norm")]
    for path, leaf in leaves.items():
        source = "predicted" if path in predicted else reasons[path]
        norm = float(jnp.linalg.norm(leaf.astype(jnp.float32).ravel()))
        rows.append(("/".join(path), "x".join(map(str, leaf.shape)) or "scalar", source, f"{norm:.4g}"))
    lines = aligned(rows, left=4)
    weights = sum(leaf.size for leaf in leaves.values())
    given = sum(leaf.size for path, leaf in leaves.items() if path in predicted)
    lines.append(f"{graph.name}: {graph.num_nodes} nodes, {given:,} of {weights:,} weights predicted")
    return "\n".join(lines)


def run(options: Options) -> str:
    """Predicts, writes the checkpoint and returns the table."""
    shape, out = image_shape(options.input), options.out.absolute()
    if out.exists():
        raise ValueError(f"--out {out} exists already; choose another folder")
    model = load_model(options.model, json_object("--arguments", options.arguments), options.seed)
    ghn, call_kwargs = resolve_ghn(options.ghn), json_object("--call_kwargs", options.call_kwargs)
    batch_axes(shape, options.layout)  # before the model's own code runs: errors of the options are told as they are
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    with code_of(options.model, f"cannot be initialised for --input={options.input}"):
        graph = trace(model, shape, layout=options.layout, call_kwargs=call_kwargs)
        variables = init_like(
            model, jax.random.key(options.seed), images, ghn, layout=options.layout, call_kwargs=call_kwargs
        )
    arrays = plain_arrays(variables)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(out, arrays)
    classifier = graph.num_classes == ghn.config.num_classes
    predicted = frozenset(spec.path for spec in graph.params if classifier or spec.role not in CLASSIFIER_ROLES)
    return report(graph, predicted, arrays)


def plain_arrays(variables: Any) -> dict[str, Any]:
    """What a checkpoint holds: nested dicts of arrays, without the metadata of leaves and without random keys."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(variables, nnx.State):
        return nnx.to_pure_dict(nnx.filter_state(variables, nnx.Not(nnx.RngState)))
    return nn.meta.unbox(variables)


def main() -> None:
    options = tyro.cli(Options, description=running.described(__doc__))
    enable_compilation_cache()
    print(run(options))


if __name__ == "__main__":
    running.run(main)
