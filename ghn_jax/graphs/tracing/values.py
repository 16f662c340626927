"""What the tracer knows about a value of a jaxpr: constant, parameter or data."""

import dataclasses
import enum

from ghn_jax.graphs.param_spec import Path
from ghn_jax.graphs.tracing.axes import Axes


class Statistics(enum.Enum):
    """What a mean or variance was taken over, hence which primitive it belongs to."""

    BATCH = "bn"  # over images (or taken from running statistics)
    EXAMPLE = "ln"  # within one image: layer, group, instance and root-mean-square normalisation


class Form(enum.Enum):
    """What a value computed from parameters is to the leaf that it came from."""

    LEAF = enum.auto()  # the leaf itself: a view, a cast
    STANDARDISED = enum.auto()  # (leaf - mean) / deviation, times a gain or not
    MEAN = enum.auto()  # of the leaf; the parts of a standardisation from here on
    SQUARES = enum.auto()
    VARIANCE = enum.auto()
    DEVIATION = enum.auto()
    INVERSE = enum.auto()  # 1 / deviation, times a gain or not
    CENTRED = enum.auto()  # leaf - mean
    SCALED = enum.auto()  # leaf / deviation
    SHIFT = enum.auto()  # mean / deviation
    OTHER = enum.auto()  # any other function


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A parameter leaf of the model."""

    path: Path
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Constant:
    """A value that depends on neither parameters nor input, running statistics included.

    Attributes:
      value: the value, where it is a known scalar.
      inverse_root: vector after a reciprocal square root: the running deviation of a normalisation.
      root: vector after a square root.
      window_means: number of axes whose windows it averages when multiplied, as in adaptive pooling.
    """

    value: int | float | bool | None = None
    inverse_root: bool = False
    root: bool = False
    window_means: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """A value computed from parameters only.

    Attributes:
      leaf: the leaf that it is a view of; None where several leaves were joined.
      axes: its axes in terms of the leaf's axes.
      index: position on axes of the leaf that were indexed away, as (axis, position) pairs.
      others: further leaves that it depends on.
      part: whether it is a slice that lacks a part of the leaf.
      form: what it is to the leaf.
      function: the first operation that made it another function of the leaf.
      normalises: statistics by whose deviation it was divided (scale / sqrt(variance), with running statistics).
      recentred: whether running statistics times a scale were subtracted (bias - mean * scale / sqrt(variance)).
    """

    leaf: Leaf | None
    axes: Axes
    index: tuple[tuple[int, int], ...] = ()
    others: frozenset[Leaf] = frozenset()
    part: bool = False
    form: Form = Form.LEAF
    function: str | None = None
    normalises: Statistics | None = None
    recentred: bool = False

    @property
    def leaves(self) -> frozenset[Leaf]:
        """All leaves that it depends on."""
        return self.others | {self.leaf} if self.leaf is not None else self.others

    @property
    def altered(self) -> bool:
        """Whether it is another function of its leaf than a standardisation."""
        return self.form not in (Form.LEAF, Form.STANDARDISED)

    def through(self, function: str) -> "Weight":
        """The value after a function that is neither layout nor a cast."""
        return dataclasses.replace(self, form=Form.OTHER, function=self.function or function)


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """A value that depends on the input.

    Attributes:
      nodes: nodes whose outputs it was computed from, everything between being contracted.
      axes: its axes.
      squeezed: whether everything in it went through a mean over space.
      summed: sum over space that a division will turn into a mean.
      kernel_open: comes straight from kernels, so that a vector added to it is their bias.
      norm_open: the normalisation node it comes straight from, whose bias may still be added.
      normalised: statistics by whose deviation it was divided, a scale not yet applied.
      statistics: whether it is itself a mean, variance or deviation.
      root, inverse_root: statistics after a square root, a reciprocal square root.
      scale, shift: parameters multiplied into, added to statistics before they meet the data.
      scores: product of data with data, as in attention.
      averaged: number of spatial axes averaged by constant matrices, as in adaptive pooling.
      centred: straight after a mean was subtracted, so that a factor may be the scale of a normalisation.
    """

    nodes: frozenset[int]
    axes: Axes
    squeezed: bool = False
    summed: bool = False
    kernel_open: bool = False
    norm_open: int | None = None
    normalised: Statistics | None = None
    statistics: Statistics | None = None
    root: bool = False
    inverse_root: bool = False
    scale: Weight | None = None
    shift: Weight | None = None
    scores: bool = False
    averaged: int = 0
    centred: bool = False

    def through(self, function: str) -> "Data":
        """The value after a function, which the parameters that wait to meet the data then went through, too."""
        if self.scale is None and self.shift is None:
            return self
        scale, shift = (w.through(function) if w is not None else None for w in (self.scale, self.shift))
        return dataclasses.replace(self, scale=scale, shift=shift)


Value = Constant | Weight | Data
