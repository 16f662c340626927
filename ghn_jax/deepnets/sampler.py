"""Draws architectures of DeepNets-1M (paper, A.1): number i of a split depends on (split, seed, i) alone."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ghn_jax.deepnets.count import parameter_count
from ghn_jax.deepnets.genotype import Genotype, NetworkArgs, Step
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.liveness import reaches_output
from ghn_jax.deepnets.operations import OPS, UNTRAINABLE_OPS
from ghn_jax.deepnets.predefined import VIT, resnet50_graph
from ghn_jax.deepnets.splits import SPLITS, WIDE_FACTOR, WIDE_FACTOR_LARGE_IMAGES, Range, SplitRules, split_rules
from ghn_jax.deepnets.widths import COUNTED_FC_DIM, draw_evaluation_width
from ghn_jax.graphs.arch_graph import ArchGraph

REJECTIONS = (
    "cse without a convolution",
    "several cse in a cell",
    "several 5x5 or 7x7 convolutions in a cell",
    "nothing to train",
    "disconnected",
    "too many parameters",
)
"""Why a draw is thrown away and repeated."""


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture of a split.

    Attributes:
      split: its split.
      index: its number there.
      args: arguments of the network; None for ResNet-50, which has no cells.
      rejections: why earlier draws for this number were thrown away, in order (members of `REJECTIONS`).
    """

    split: str
    index: int
    args: NetworkArgs | None
    rejections: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Such as ``train/17``."""
        return f"{self.split}/{self.index}"

    def graph(self) -> ArchGraph:
        """Its graph."""
        return resnet50_graph(name=self.name) if self.args is None else network_graph(self.args, self.name)


def sample_architecture(split: str, index: int, seed: int = 0, *, large_images: bool = False) -> Architecture:
    """Architecture number `index` of a split.

    Args:
      split: one of `SPLITS`.
      index: number within the split, not limited to the published size (but in ``predefined``: 0 ResNet-50, 1 ViT).
      seed: of the whole data set.
      large_images: whether ``wide`` is as wide as for ImageNet.

    Raises:
      ValueError: for an unknown split, a negative index or seed, or an index beyond a fixed list.
    """
    if split == "predefined":
        if index not in range(split_rules(split).published):
            raise ValueError(f"split 'predefined' has ResNet-50 (0) and ViT (1), asked for number {index}")
        return Architecture(split, index, VIT if index else None)
    args, rejections = sample_args(split, index, seed, large_images=large_images)
    return Architecture(split, index, args, rejections)


def sample_args(
    split: str, index: int, seed: int = 0, *, large_images: bool = False
) -> tuple[NetworkArgs, tuple[str, ...]]:
    """As `sample_architecture`, for the splits that are drawn: arguments and the reasons of rejected draws."""
    return next(draws(split, index, seed, large_images=large_images))


def draws(
    split: str, index: int, seed: int = 0, *, large_images: bool = False
) -> Iterator[tuple[NetworkArgs, tuple[str, ...]]]:
    """All that is drawn for one number, without end: the first is `sample_args`.

    Whoever may not use a network takes the next one; rejections are those of this draw.
    """
    rules = split_rules(split)
    if split == "predefined":
        raise ValueError("split 'predefined' is a list of two networks, which are not drawn; use sample_architecture")
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed must not be negative, got index {index} and seed {seed}")
    source = "test" if split == "wide" else split
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(list(SPLITS).index(source), index)))
    while True:
        rejections: list[str] = []
        args = _draw(rules, rng)
        while reason := rejection(args, rules.max_params):
            rejections.append(reason)
            args = _draw(rules, rng)
        if split == "wide":
            args = args.replace(C=args.C * (WIDE_FACTOR_LARGE_IMAGES if large_images else WIDE_FACTOR))
        if rules.evaluated:
            args = draw_evaluation_width(args, rng, width=split != "wide")
        yield args, tuple(rejections)


def rejection(args: NetworkArgs, max_params: int) -> str | None:
    """Why a draw is not used (a member of `REJECTIONS`), or None."""
    genotype = args.genotype
    cells = ([op for op, _ in genotype.normal], [op for op, _ in genotype.reduce])
    convolutions, gates = genotype.has_op("conv"), genotype.has_op("cse")
    checks = (  # in the order of REJECTIONS; the later ones cost more and run only if needed
        lambda: gates and not convolutions,
        lambda: max(cell.count("cse") for cell in cells) > 1,
        lambda: max(cell.count("conv_5x5") + cell.count("conv_7x7") for cell in cells) > 1,
        lambda: not (convolutions or gates or args.is_transformer),
        lambda: not reaches_output(args),
        lambda: parameter_count(args) > max_params,
    )
    return next((reason for reason, check in zip(REJECTIONS, checks, strict=True) if check()), None)


def _draw(rules: SplitRules, rng: np.random.Generator) -> NetworkArgs:
    """One draw, not yet checked, at C = 32."""
    cells = _uniform(rng, rules.cells)
    short = cells <= _uniform(rng, rules.threshold)
    steps = _uniform(rng, rules.steps if short else rules.steps_long)
    genotype = _draw_genotype(rng, steps)
    transformer = genotype.has_op("msa")
    choices: dict[str, Any] = {"C_mult": _uniform(rng, (1, 2)), "ks": 3 + 2 * _uniform(rng, (0, 2))}
    choices["preproc"] = steps > 1 or choices["C_mult"] > 1 or bool(rng.random() < rules.preproc[transformer])
    choices["glob_avg"] = transformer or not short or bool(rng.random() >= 0.1)
    batch_norm = rules.batch_norm
    if batch_norm is None:
        batch_norm = cells > rules.cells[0] + 1 or steps > 2 or bool(rng.random() < 0.5)
    choices["norm"] = "bnorm" if batch_norm else None
    choices["stem_type"] = _uniform(rng, (0, 1))
    choices["stem_pool"] = choices["stem_type"] == 0 and bool(rng.random() < 0.5)
    choices["fc_layers"] = _uniform(rng, (1, 2))
    return NetworkArgs(genotype=genotype, n_cells=cells, fc_dim=COUNTED_FC_DIM, **choices)


def _draw_genotype(rng: np.random.Generator, steps: int) -> Genotype:
    first = 0 if steps > 1 else 1  # "none" only makes sense beside other steps
    normal = _draw_steps(rng, steps, OPS[first:])
    reduce = _draw_steps(rng, steps, UNTRAINABLE_OPS[first:] if rng.random() < 0.5 else OPS[first:])
    concat = tuple(range(2, 2 + steps))
    if steps > 1 and rng.random() < 0.5:
        kept = rng.random(steps - 1) < 0.5
        concat = (*(index for index, keep in zip(concat, kept.tolist(), strict=False) if keep), concat[-1])
    return Genotype(normal, concat, reduce, concat)


def _draw_steps(rng: np.random.Generator, steps: int, ops: tuple[str, ...]) -> tuple[Step, ...]:
    """For each step, the two inputs with the highest scores and the best op of each; scores are Gaussian."""
    chosen: list[Step] = []
    for step in range(steps):
        scores = rng.standard_normal((2 + step, len(ops)))
        best = scores.argmax(axis=1).tolist()
        ranked = np.argsort(-scores.max(axis=1))[:2].tolist()
        chosen.extend((ops[best[index]], index) for index in ranked)
    return tuple(chosen)


def _uniform(rng: np.random.Generator, values: Range) -> int:
    return int(rng.integers(values[0], values[1] + 1))
