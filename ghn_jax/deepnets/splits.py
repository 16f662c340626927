"""The splits of DeepNets-1M: ranges that their networks are drawn from (paper, A.1 and Table 1)."""

import dataclasses
import types
from collections.abc import Mapping

Range = tuple[int, int]
"""First and last value, both included."""


@dataclasses.dataclass(frozen=True, slots=True)
class SplitRules:
    """What is particular to one split.

    Attributes:
      cells: number of cells L.
      threshold: D, up to which number of cells a network counts as short.
      steps: steps of a cell where L <= D.
      steps_long: steps of a cell where L > D.
      max_params: networks with more weights at C = 32 are rejected.
      batch_norm: True always, False never, None as the paper draws it.
      preproc: probability of it where the arguments leave it free, for networks (without, with) msa.
      evaluated: whether width and fc_dim belong to the architecture (else they are drawn at every use).
      published: number of architectures in the published set.
    """

    cells: Range = (4, 18)
    threshold: Range = (7, 10)
    steps: Range = (1, 4)
    steps_long: Range = (1, 2)
    max_params: int = 10_000_000
    batch_norm: bool | None = None
    preproc: tuple[float, float] = (1.0, 0.2)
    evaluated: bool = True
    published: int = 500


SPLITS: Mapping[str, SplitRules] = types.MappingProxyType(
    {
        "train": SplitRules(evaluated=False, published=1_000_000),
        "val": SplitRules(),
        "test": SplitRules(),
        "search": SplitRules(
            cells=(6, 20),
            threshold=(10, 10),
            steps=(1, 6),
            steps_long=(1, 3),
            batch_norm=True,
            preproc=(0.8, 0.2),
            evaluated=False,
            published=100_000,
        ),
        "wide": SplitRules(published=100),
        "deep": SplitRules(cells=(10, 36), threshold=(18, 18), max_params=100_000_000, published=100),
        "dense": SplitRules(steps=(2, 10), steps_long=(2, 6), max_params=100_000_000, published=100),
        "bnfree": SplitRules(batch_norm=False, published=100),
        "predefined": SplitRules(published=2),
    }
)
"""Splits in the order of the release. `wide` repeats `test` at several times the width; `predefined` is not drawn."""

WIDE_FACTOR = 4
WIDE_FACTOR_LARGE_IMAGES = 2
"""How many times wider than 32 channels the networks of `wide` are."""


def split_rules(split: str) -> SplitRules:
    """Rules of a split; raises ValueError naming an unknown one."""
    try:
        return SPLITS[split]
    except KeyError:
        raise ValueError(f"unknown split {split!r}; known splits: {', '.join(SPLITS)}") from None
