"""The layers of the 16 networks of `benchmarks.networks` as lines of JSON, for timing the same layers elsewhere.

A line per distinct layer: ``{"kind", "count", "batch", "size", "cin", "cout", "k", "stride", "bn"}``. Kinds: conv
(ReLU, convolution, BN), conv2 (ReLU, 1 x k, k x 1, BN), sep (twice ReLU, depthwise, pointwise, BN), dil (ReLU,
depthwise of dilation 2, pointwise, BN), reduce (factorised reduction), max, avg, cse, msa, add.
"""

import collections
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from ghn_jax.deepnets import recipes
from ghn_jax.networks.programs import ProgramKey
from ghn_jax.networks.recipe_layer import RecipeLayer
from ghn_jax.networks.schedule import Step

KINDS: dict[type[recipes.Recipe], str] = {
    recipes.ConvNorm: "conv",
    recipes.FactorisedConv: "conv2",
    recipes.SeparableConv: "sep",
    recipes.DilatedConv: "dil",
    recipes.FactorisedReduction: "reduce",
    recipes.SqueezeExcitation: "cse",
    recipes.TransformerBlock: "msa",
    recipes.Add: "add",
}


def described(key: ProgramKey) -> dict[str, Any] | None:
    """A layer in the terms above, but for its count; None for what has no kind there: stems, concatenations, heads."""
    layer, batch, size, channels = key.layer, *key.inputs[0].shape[:2], key.inputs[0].shape[3]
    if not isinstance(layer, RecipeLayer):
        return None
    recipe = layer.recipe
    kind = recipe.kind if isinstance(recipe, recipes.Pool) else KINDS.get(type(recipe))
    if kind is None:
        return None
    return {
        "kind": kind,
        "batch": batch,
        "size": size,
        "cin": channels,
        "cout": getattr(recipe, "width", channels),
        "k": 7 if kind == "conv2" else getattr(recipe, "kernel", 1),
        "stride": getattr(recipe, "stride", 1),
        "bn": layer.norm is not None,
    }


def write(steps: Iterable[Step], file: pathlib.Path) -> None:
    """Writes the layers of all steps; says how many calls have no kind."""
    counts: collections.Counter[str | None] = collections.Counter()
    for step in steps:
        found = described(step.key)
        counts[None if found is None else json.dumps(found)] += 1
    left = counts.pop(None, 0)
    lines = [json.dumps({**json.loads(line or ""), "count": count}) for line, count in counts.items()]
    file.write_text("\n".join(lines) + "\n")
    print(
        f"{file}: {len(lines)} layers of {counts.total()} calls; {left} calls of stems, concatenations, heads left out"
    )
