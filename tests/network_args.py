"""Random network arguments for hypothesis, and small hand-made ones."""

from typing import Any

from hypothesis import strategies as st

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs, Step
from ghn_jax.deepnets.operations import OPS


def small_args(normal: tuple[Step, ...], concat: tuple[int, ...] = (2,), **changes: Any) -> NetworkArgs:
    """A network whose cells are all `normal`."""
    genotype = Genotype(normal=normal, normal_concat=concat, reduce=normal, reduce_concat=concat)
    fields: dict[str, Any] = {"genotype": genotype, "n_cells": 1, "C": 8, **changes}
    return NetworkArgs(**fields)


@st.composite
def cells(draw: st.DrawFn, steps: int) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Steps of one cell and the indices that are concatenated."""
    ops = [(draw(st.sampled_from(OPS)), draw(st.integers(0, 1 + step))) for step in range(steps) for _ in range(2)]
    concat = draw(st.sets(st.integers(2, 1 + steps), min_size=1))
    return tuple(ops), tuple(sorted(concat))


@st.composite
def network_args(draw: st.DrawFn) -> NetworkArgs:
    """Arguments of a network whose widths and sizes agree; its output may be zero."""
    steps = draw(st.integers(1, 5))
    normal, normal_concat = draw(cells(steps))
    reduce, reduce_concat = draw(cells(steps))
    widening = draw(st.integers(1, 2))
    return NetworkArgs(
        genotype=Genotype(normal, normal_concat, reduce, reduce_concat),
        n_cells=draw(st.integers(1, 12)),
        C=draw(st.sampled_from((8, 16, 32))),
        C_mult=widening,
        ks=draw(st.sampled_from((3, 5, 7))),
        stem_type=draw(st.integers(0, 1)),
        stem_pool=draw(st.booleans()),
        preproc=steps > 1 or widening > 1 or draw(st.booleans()),
        norm=draw(st.sampled_from(("bnorm", None))),
        glob_avg=draw(st.booleans()),
        fc_layers=draw(st.integers(1, 3)),
        num_classes=draw(st.sampled_from((10, 1000))),
        image_size=draw(st.sampled_from((32, 224))),
    )
