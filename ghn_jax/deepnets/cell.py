"""A cell of a network as a recipe: what is left of it, joined."""

import dataclasses
import functools

from ghn_jax.deepnets.liveness import LiveCell
from ghn_jax.deepnets.operations import OPERATIONS
from ghn_jax.deepnets.recipes import Add, Assembler, Concat, ConvNorm, FactorisedReduction, Recipe, Stride, V


@dataclasses.dataclass(frozen=True, slots=True)
class Cell(Recipe):
    """Steps of a cell, set into a network; called with those of its two inputs that are used.

    Attributes:
      kept: its steps.
      preproc: whether its inputs are projected to its width.
      width: of its ops.
      stride: of the ops on its inputs.
      halves_first: whether its first input is twice as high and wide as its second.
    """

    kept: LiveCell
    preproc: bool
    width: int
    stride: int
    halves_first: bool

    def __call__(self, build: Assembler[V], *inputs: V) -> V:
        """Concatenated steps."""
        kept = self.kept
        given = iter(inputs)
        states: list[V | None] = []
        for index in (0, 1):
            states.append(self._project(build, index, next(given)) if kept.inputs[index] else None)
        for place in range(0, len(kept.steps), 2):
            total = None
            for branch in (place, place + 1):
                step = kept.steps[branch]
                x = states[step[1]] if step else None
                if step and x is not None:
                    op, source = step
                    recipe = OPERATIONS[op].at(self.width, self.stride if source < 2 else 1)
                    y = build.layer(f"ops_{branch}", recipe, x, kind=op, branch=True)
                    total = y if total is None else build.layer("", _ADD, total, y, kind="sum")
            states.append(total)
        parts = [None if index is None else states[index] for index in kept.concat]
        alive = [part for part in parts if part is not None]
        if len(parts) == 1:
            return alive[0]
        zeros = tuple([self.width if part is None else None for part in parts])
        return build.layer("", _concat(zeros), *alive, kind="concat")

    def _project(self, build: Assembler[V], index: int, x: V) -> V:
        halves = self.halves_first and index == 0
        if self.preproc:
            return build.layer(f"preprocess{index}", _projection(self.width, halves), x, kind="preproc")
        return build.layer("", _STRIDE, x, kind="stride") if halves else x


# The same objects every time: caches that are keyed by recipes compare them by identity first.
_ADD, _STRIDE = Add(), Stride()
_concat = functools.lru_cache(maxsize=1024)(Concat)


@functools.lru_cache(maxsize=1024)
def _projection(width: int, halves: bool) -> Recipe:
    """What turns an input of a cell into its width."""
    return FactorisedReduction(width) if halves else ConvNorm(1, width)
