"""What the layers of a network do, each described once over an abstract builder.

A recipe says which steps a layer is made of, under which names its parameters lie, and how strides and ReLUs are
placed. Whoever gives it a builder decides what comes of that: nodes of an architecture graph (`builder`), shapes and a
number of weights (`shapes`), or arrays and Flax parameters (`ghn_jax.networks`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

V = TypeVar("V")
"""What flows between steps: nodes, shapes or arrays (B, H, W, C)."""

Pair = tuple[int, int]
Activation = Literal["relu", "gelu", "hard_swish"]
PoolKind = Literal["max", "avg"]


class Assembler(Protocol[V]):
    """Whatever joins layers."""

    def layer(self, name: str, recipe: "Recipe", *inputs: V, kind: str = "", branch: bool = False) -> V:
        """Output of another recipe.

        Args:
          name: its parameters lie under this name; "" if it has none.
          recipe: what it does.
          inputs: what it reads.
          kind: name of the op, for reports.
          branch: whether it is an op that drop-path may drop.
        """
        ...


class Builder(Assembler[V], Protocol[V]):
    """The steps that recipes are made of; parameters of a step lie under its `name` in the layer."""

    def width(self, x: V) -> int:
        """Channels of x."""
        ...

    def conv(
        self,
        x: V,
        name: str,
        width: int,
        kernel: Pair = (1, 1),
        *,
        strides: Pair = (1, 1),
        groups: int = 1,
        dilation: int = 1,
        relu: bool = False,
        padding: int | None = None,
    ) -> V:
        """Convolution without bias, of ReLU(x) if `relu`; without a `padding`, it keeps the size at stride 1."""
        ...

    def dense(self, x: V, name: str, width: int, *, bias: bool = True, classifier: bool = False) -> V:
        """Linear layer of channels; the last one of a network is its `classifier`."""
        ...

    def norm(self, x: V, name: str) -> V:
        """Batch normalisation, if the network has any."""
        ...

    def layer_norm(self, x: V, name: str) -> V:
        """Layer normalisation over the channels of each pixel."""
        ...

    def position_table(self, x: V, name: str) -> V:
        """Adds a learned table to x."""
        ...

    def activation(self, x: V, kind: Activation) -> V:
        """Elementwise function."""
        ...

    def pool(self, x: V, kind: PoolKind, stride: int, *, window: int = 3, padding: int = 1) -> V:
        """Maximum or mean over windows; padding does not enter a mean."""
        ...

    def mean(self, x: V, *, squeeze: bool = False) -> V:
        """Mean over space; with `squeeze` that of a channel gate, which is no node of a graph."""
        ...

    def flatten(self, x: V) -> V:
        """All pixels as channels, channels first."""
        ...

    def attention(self, qkv: V, heads: int) -> V:
        """Softmax attention among pixels; qkv are three widths of channels."""
        ...

    def gate(self, x: V, gate: V) -> V:
        """Each channel of x times its gate."""
        ...

    def stride(self, x: V, stride: int) -> V:
        """Every stride-th pixel of every stride-th row."""
        ...

    def shift(self, x: V) -> V:
        """Without the first row and column; an odd side first gets a row of zeros at its end."""
        ...

    def add(self, x: V, y: V) -> V:
        """Sum of two values of equal shape."""
        ...

    def concat(self, values: Sequence[V], zeros: Sequence[int | None] = ()) -> V:
        """Channels side by side; `zeros` lists widths of zeros, with None where the next value stands."""
        ...

    def zeros(self, x: V, width: int, stride: int) -> V:
        """Zeros in the place of an op on x."""
        ...

    def dropout(self, x: V, rate: float) -> V:
        """Dropout in training."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """A layer: its numbers, and its steps in ``__call__(build, *inputs)``. Hashable, equal for equal fields."""

    @property
    def random(self) -> bool:
        """Whether training needs a key."""
        return False

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """The layer's output from its inputs."""
        raise NotImplementedError


def _keep_width(build: Builder[V], x: V, width: int) -> None:
    if build.width(x) != width:
        raise ValueError(f"cannot turn {build.width(x)} channels into {width}; use preproc or C_mult = 1")


@dataclasses.dataclass(frozen=True, slots=True)
class Zero(Recipe):
    """``none``: zeros."""

    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Zeros of the op's shape."""
        return build.zeros(inputs[0], self.width, self.stride)


@dataclasses.dataclass(frozen=True, slots=True)
class Identity(Recipe):
    """``skip_connect`` at stride 1."""

    width: int

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """The input."""
        _keep_width(build, inputs[0], self.width)
        return inputs[0]


@dataclasses.dataclass(frozen=True, slots=True)
class FactorisedReduction(Recipe):
    """ReLU, two 1 x 1 convolutions of stride 2, the second shifted by one pixel; concatenated; BN."""

    width: int

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Half as high and wide."""
        (x,) = inputs
        half = self.width // 2
        first = build.conv(x, "conv_1", half, strides=(2, 2), relu=True)
        second = build.conv(build.shift(x), "conv_2", self.width - half, strides=(2, 2), relu=True)
        return build.norm(build.concat((first, second)), "bn")


def skip(width: int, stride: int) -> Recipe:
    """``skip_connect``."""
    return FactorisedReduction(width) if stride > 1 else Identity(width)


@dataclasses.dataclass(frozen=True, slots=True)
class Pool(Recipe):
    """``max_pool_3x3``, ``avg_pool_3x3``."""

    kind: PoolKind
    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Pooled."""
        _keep_width(build, inputs[0], self.width)
        return build.pool(inputs[0], self.kind, self.stride)


@dataclasses.dataclass(frozen=True, slots=True)
class ConvNorm(Recipe):
    """ReLU, convolution, BN: ``conv_1x1 .. conv_7x7`` and the projections of a cell's inputs."""

    kernel: int
    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Convolved."""
        kernel, strides = (self.kernel, self.kernel), (self.stride, self.stride)
        x = build.conv(inputs[0], "op_1", self.width, kernel, strides=strides, relu=True)
        return build.norm(x, "op_2")


@dataclasses.dataclass(frozen=True, slots=True)
class FactorisedConv(Recipe):
    """``conv_7x1_1x7``: ReLU, 1 x 7, 7 x 1, BN; each convolution strides along its long side."""

    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Convolved."""
        x = build.conv(inputs[0], "op_1", self.width, (1, 7), strides=(1, self.stride), relu=True)
        x = build.conv(x, "op_2", self.width, (7, 1), strides=(self.stride, 1))
        return build.norm(x, "op_3")


@dataclasses.dataclass(frozen=True, slots=True)
class SeparableConv(Recipe):
    """``sep_conv``: ReLU, depthwise, pointwise, BN, twice; the stride is in the first."""

    kernel: int
    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Convolved."""
        kernel, strides, into = (self.kernel, self.kernel), (self.stride, self.stride), build.width(inputs[0])
        x = build.conv(inputs[0], "op_1", into, kernel, strides=strides, groups=into, relu=True)
        x = build.norm(build.conv(x, "op_2", into), "op_3")
        x = build.conv(x, "op_5", into, kernel, groups=into, relu=True)
        return build.norm(build.conv(x, "op_6", self.width), "op_7")


@dataclasses.dataclass(frozen=True, slots=True)
class DilatedConv(Recipe):
    """``dil_conv``: ReLU, depthwise of dilation 2, pointwise, BN."""

    kernel: int
    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Convolved."""
        kernel, strides, into = (self.kernel, self.kernel), (self.stride, self.stride), build.width(inputs[0])
        x = build.conv(inputs[0], "op_1", into, kernel, strides=strides, groups=into, dilation=2, relu=True)
        return build.norm(build.conv(x, "op_2", self.width), "op_3")


HEADS = 8
"""Attention heads of a transformer block."""


@dataclasses.dataclass(frozen=True, slots=True)
class TransformerBlock(Recipe):
    """``msa``: pre-norm block on H * W tokens; attention, MLP of the same width with exact GELU, both residual."""

    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Attended to; the width must be a multiple of 8."""
        (x,) = inputs
        _keep_width(build, x, self.width)
        if self.width % HEADS:
            raise ValueError(f"needs a width that is a multiple of {HEADS} heads, got {self.width}; change C")
        y = build.dense(build.layer_norm(x, "ln1"), "to_qkv", 3 * self.width, bias=False)
        x = build.add(build.dense(build.attention(y, HEADS), "to_out_0", self.width), x)
        x = build.add(build.layer("ff", FeedForward(self.width), build.layer_norm(x, "ln2")), x)
        return build.stride(x, self.stride)


@dataclasses.dataclass(frozen=True, slots=True)
class FeedForward(Recipe):
    """Linear, exact GELU, linear, all of one width."""

    width: int

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Of each pixel."""
        hidden = build.activation(build.dense(inputs[0], "net_0", self.width), "gelu")
        return build.dense(hidden, "net_3", self.width)


@dataclasses.dataclass(frozen=True, slots=True)
class SqueezeExcitation(Recipe):
    """``cse``: spatial mean, linear to half the width, ReLU, linear, hard-swish, product."""

    width: int
    stride: int = 1

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Gated."""
        (x,) = inputs
        _keep_width(build, x, self.width)
        gate = build.activation(build.dense(build.mean(x, squeeze=True), "fc1", self.width // 2), "relu")
        gate = build.activation(build.dense(gate, "fc2", self.width), "hard_swish")
        return build.gate(build.stride(x, self.stride), gate)


@dataclasses.dataclass(frozen=True, slots=True)
class Stride(Recipe):
    """Every second pixel of every second row: s0 behind a reduction, without preproc."""

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Half as high and wide."""
        return build.stride(inputs[0], 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Add(Recipe):
    """Sum of the two ops of a step."""

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Sum of two inputs."""
        return build.add(*inputs)


@dataclasses.dataclass(frozen=True, slots=True)
class Concat(Recipe):
    """Concatenation of a cell's steps; `zeros` are widths of steps that are zero, None where an input stands."""

    zeros: tuple[int | None, ...]

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Channels of all inputs."""
        return build.concat(inputs, self.zeros)
