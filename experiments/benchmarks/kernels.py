"""CPU formulations against XLA's own operations: forward and backward of each, in turns, 64 images.

The shapes are those that most of the networks' time goes to; the notes on each formulation quote this table.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from ghn_jax.networks.kernels.attention import attend
from ghn_jax.networks.kernels.batch_norm import batch_norm
from ghn_jax.networks.kernels.convolution import convolution
from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.kernels.pooling import max_pool
from ghn_jax.networks.kernels.tokens import gelu_linear, linear, norm_linear

BATCH = 64
REPEATS = 4
"""Calls timed for each of the repeats of a benchmark."""

Case = tuple[str, Callable[..., jax.Array], tuple[tuple[int, ...], ...]]


def convolutions() -> list[Case]:
    """Size of the image, channels, kernel, and the rest."""
    rows = [
        (32, 32, (1, 1), (1, 1)),
        (32, 32, (3, 3), (1, 1)),
        (16, 32, (3, 3), (1, 1)),
        (8, 128, (5, 5), (2, 2)),
        (32, 32, (1, 7), (1, 1)),
        (32, 32, (7, 1), (1, 1)),
        (4, 128, (7, 7), (1, 1)),
    ]
    cases: list[Case] = []
    for size, width, kernel, strides in rows:
        name = f"convolution {kernel[0]} x {kernel[1]}" + (" stride 2" if strides != (1, 1) else "")
        shapes = ((BATCH, size, size, width), (*kernel, width, width))
        cases.append((name, lambda x, k, strides=strides: convolution(x, k, strides, relu=True), shapes))
    for size, width, side, dilation in ((32, 32, 3, 1), (11, 32, 5, 1), (16, 32, 5, 2)):
        name = f"depthwise {side} x {side}" + (f" dilation {dilation}" if dilation > 1 else "")
        shapes = ((BATCH, size, size, width), (side, side, 1, width))
        cases.append(
            (name, lambda x, k, d=dilation: convolution(x, k, dilation=d, groups=k.shape[3], relu=True), shapes)
        )
    return cases


def cases() -> list[Case]:
    """Name, function and shapes of its arguments."""
    image, tokens = (BATCH, 32, 32, 32), (BATCH, 121, 128)
    return [
        *convolutions(),
        ("max-pool", lambda x: max_pool(x, 1), ((BATCH, 11, 11, 128),)),
        ("max-pool stride 2", lambda x: max_pool(x, 2), ((BATCH, 32, 32, 96),)),
        ("batch norm", lambda x, s, b: batch_norm(x, s, b, 1e-5)[0], (image, image[3:], image[3:])),
        ("attention, 8 heads", lambda x: attend(x, 8), ((BATCH, 121, 3 * 32),)),
        ("attention, 8 heads", lambda x: attend(x, 8), ((BATCH, 121, 3 * 128),)),
        ("linear", linear, (tokens, (128, 128), (128,))),
        ("GELU, linear", gelu_linear, (tokens, (128, 128), (128,))),
        (
            "layer norm, linear",
            lambda x, s, b, k: norm_linear(x, s, b, k, epsilon=1e-5),
            (tokens, tokens[2:], tokens[2:], (128, 384)),
        ),
    ]


def programs(function: Callable[..., jax.Array], arrays: list[jax.Array], platform: str | None) -> Callable[[], Any]:
    """A call of the forward and the backward program, as the runner compiles them."""

    def forward(*arrays: jax.Array) -> Any:
        with compiling_for(platform):
            return jax.vjp(function, *arrays)

    compiled = jax.jit(forward)
    backward = jax.jit(lambda pull, cotangent: pull(cotangent))

    def call() -> Any:
        out, pull = compiled(*arrays)
        return jax.block_until_ready(backward(pull, out))

    return call


def run(repeats: int) -> dict[str, float]:
    """Prints medians in milliseconds of both ways; returns how many times as fast ours are."""
    figures = {}
    print(f"{'forward and backward':28} {'first argument':>20} {'plain':>9} {'ours':>9}  ms")
    for name, function, shapes in cases():
        arrays = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
        calls = [programs(function, arrays, platform) for platform in (None, "cpu")]
        seconds: list[list[float]] = [[], []]
        for turn in range(1 + repeats * REPEATS):
            for call, taken in zip(calls, seconds, strict=True):
                start = time.perf_counter()
                call()
                if turn:
                    taken.append(time.perf_counter() - start)
        plain, ours = (1000 * statistics.median(taken) for taken in seconds)
        print(f"{name:28} {shapes[0]!s:>20} {plain:9.2f} {ours:9.2f}  {plain / ours:.1f} x", flush=True)
        figures[f"{name} {shapes[0]}"] = plain / ours
    return figures
