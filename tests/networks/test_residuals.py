"""What layers keep for their backward passes: at most 1.25 times what their mathematics needs, on every platform.

A residual that is one of the layer's inputs or parameters costs nothing, for the runner holds those anyway. The rest is
counted by tracing alone, so that the forms of GPUs and TPUs are counted where there are none.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Literal

from ghn_jax.deepnets import ends, recipes
from ghn_jax.deepnets.operations import OPERATIONS, OPS
from ghn_jax.deepnets.recipes import HEADS
from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.recipe_layer import Norm, RecipeLayer

SLACK = 1.25
B, C, CLASSES, HIDDEN = 64, 32, 10, 64
PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, its inputs and what its mathematics needs.

    Attributes:
      recipe: of the layer.
      inputs: shapes.
      arrays: shapes of activations that the gradients read and that are neither inputs nor cheaply computed from
        inputs and other residuals (by something elementwise, or a sum over channels).
      statistics: numbers in at least float32: means, deviations, denominators of softmaxes.
      flags: single bytes: places of maxima, masks of dropout.
      of_images: whether the input is the images, whose cotangent nobody wants.
    """

    recipe: recipes.Recipe
    inputs: tuple[tuple[int, ...], ...]
    arrays: tuple[tuple[int, ...], ...]
    statistics: int = 0
    flags: int = 0
    of_images: bool = False

    @property
    def layer(self):
        return RecipeLayer(self.recipe, Norm())

    def needed(self, dtype):
        activations = sum(math.prod(shape) for shape in self.arrays)
        return activations * jnp.dtype(dtype).itemsize + self.statistics * 4 * (1 + (dtype == "float64")) + self.flags


def needs_of_op(op, stride):
    """Arrays, statistics and flags of an op from (B, 12, 12, C) to (B, 12 / stride, 12 / stride, C)."""
    size = 12 // stride
    out = (B, size, size, C)
    norm = 2 * C  # mean and deviation of each channel
    tokens = B * 12 * 12
    return {
        # The place of each maximum.
        "max_pool_3x3": ((), 0, math.prod(out)),
        # Linear, no parameters: nothing.
        "avg_pool_3x3": ((), 0, 0),
        # Both convolutions read the input; BN reads their concatenation.
        "skip_connect": ((out,), norm, 0),
        # Twice: the depthwise convolution's output, read by the pointwise. That is narrow, so that its output is
        # computed again, and the BN's, which is an affine function of it.
        **dict.fromkeys(("sep_conv_3x3", "sep_conv_5x5"), ((out,) * 2, 2 * norm, 0)),
        # The depthwise convolution's output, read by the pointwise, whose output is computed again.
        **dict.fromkeys(("dil_conv_3x3", "dil_conv_5x5"), ((out,), norm, 0)),
        # The convolution reads the ReLU of the input; it is narrow, and its output is computed again.
        "conv_1x1": ((), norm, 0),
        # What BN reads; the convolution reads the ReLU of the input.
        **dict.fromkeys(("conv_3x3", "conv_5x5", "conv_7x7"), ((out,), norm, 0)),
        # The second convolution reads the first's output, in which only the columns are strided; BN reads the second's.
        "conv_7x1_1x7": (((B, 12, size, C), out), norm, 0),
        # Queries, keys and values; what attention gives; the sum that the second LN reads; what GELU reads. Mean and
        # deviation of each token for each LN, a denominator for each token and head.
        "msa": (((B, 12, 12, 3 * C), *((B, 12, 12, C),) * 3), tokens * (4 + HEADS), 0),
        # Of each image: the mean, what ReLU gives, what hard-swish reads, the gate.
        "cse": (((B, C), (B, C // 2), (B, C), (B, C)), 0, 0),
    }[op]


def cases():
    """Every op in every stride that has a layer, and the layers around the cells."""
    image, small = (B, 32, 32, 3), (B, 6, 6, C)
    listed = {}
    for op in OPS:
        for stride in (1, 2):
            if op == "none" or (op, stride) in (("skip_connect", 1), ("msa", 2)):
                continue
            layer = OPERATIONS[op].at(C, stride)
            listed[f"{op} stride {stride}"] = Case(layer, ((B, 12, 12, C),), *needs_of_op(op, stride))
    whole, half, pooled = (B, 32, 32, C), (B, 32, 32, C // 2), (B, 16, 16, C)
    listed |= {
        # What BN reads, for the convolution is wide.
        "preproc": Case(recipes.ConvNorm(1, C), ((B, 12, 12, 3 * C),), ((B, 12, 12, C),), 2 * C),
        "simple stem": Case(ends.SimpleStem(C, 3, False, False), (image,), (whole,), 2 * C, of_images=True),
        # The pooled pixels are an affine function of what BN reads; their places.
        "simple stem with pool": Case(
            ends.SimpleStem(C, 3, False, True), (image,), (whole,), 2 * C, math.prod(pooled), of_images=True
        ),
        # What both BNs read.
        "double stem": Case(ends.DoubleStem(C, 3, False), (image,), (half, whole), 3 * C, of_images=True),
        "second stem": Case(ends.SecondStem(C), (whole,), (pooled,), 2 * C),
        # Linear in its parameters.
        "transformer stem": Case(ends.TransformerStem(C, False), (image,), (), of_images=True),
        # Linear, no parameters.
        "sum": Case(recipes.Add(), (small, small), ()),
        "stride": Case(recipes.Stride(), (small,), ()),
        "concat": Case(recipes.Concat((None, C, None)), (small, small), ()),
        # The mean; the hidden layer before and after ReLU and dropout; masks of both.
        "head": Case(ends.Classifier(CLASSES, (HIDDEN,)), (small,), ((B, C), *((B, HIDDEN),) * 2), 0, 2 * B * HIDDEN),
        # The input is all that the only layer reads.
        "flat head": Case(ends.Classifier(CLASSES, (), False), (small,), ()),
        # What each convolution and BN reads, on (6 - 5) // 3 + 1 = 1 pixel and thereafter; the last ReLU's result.
        "auxiliary head": Case(
            ends.AuxiliaryHead(CLASSES),
            ((B, 8, 8, C),),
            ((B, 2, 2, C), (B, 2, 2, 128), (B, 2, 2, 128), (B, 768), (B, 768)),
            2 * (128 + 768),
            B * 768,
        ),
    }
    return listed


CASES = cases()


def residuals(case, platform, dtype):
    """Shapes and types of what the forward pass hands to the backward pass, apart from inputs and parameters."""
    inputs = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in case.inputs)
    variables = jax.eval_shape(
        lambda *xs: case.layer.init(jax.random.key(0), *xs), *(jax.ShapeDtypeStruct(x.shape, "float32") for x in inputs)
    )

    def forward(variables, inputs):
        def apply(variables, inputs):
            return case.layer.apply(variables, *inputs, train=True, rngs={"dropout": jax.random.key(0)})

        with compiling_for(platform):
            if case.of_images:
                return jax.vjp(lambda variables: apply(variables, inputs), variables)
            return jax.vjp(apply, variables, inputs)

    jaxpr = jax.make_jaxpr(forward)(variables, inputs).jaxpr
    free = {*jaxpr.invars, *jaxpr.constvars}
    computed = dict.fromkeys(v for v in jaxpr.outvars[1:] if not isinstance(v, Literal))
    return [v.aval for v in computed if v not in free]


def size(avals):
    return sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in avals)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", CASES)
def test_residuals(name, platform, dtype):
    case = CASES[name]
    kept = residuals(case, platform, dtype)
    assert size(kept) <= SLACK * case.needed(dtype), kept


def test_what_is_kept_is_counted():
    """The plain form of attention keeps its scores: the count sees them."""
    case = CASES["msa stride 1"]
    kept = residuals(case, None, "float32")
    scores = B * HEADS * (12 * 12) ** 2 * 4
    assert size(kept) > case.needed("float32") + scores
