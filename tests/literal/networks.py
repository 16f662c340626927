"""DeepNets-1M networks in NumPy, float64 and NCHW: an executable form of docs/method.md, section 9.

Shares no code with the library. BN uses the statistics of the batch, dropout is off. Values are computed only when
something asks for them, so that ops which do not reach the output need no parameters; None stands for zero.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import erf

from ghn_jax.deepnets.genotype import NetworkArgs

Array = np.ndarray
Value = Callable[[], Array]  # computed once, when it is first asked for
HEADS = 8


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def windows(x: Array, kernel: tuple[int, int], stride: tuple[int, int], dilation: int, filling: float) -> Array:
    """(B, C, H', W', kh, kw): padded so that stride 1 keeps the size."""
    reach = [dilation * (k - 1) for k in kernel]
    pads = [(r // 2, r // 2) for r in reach]
    x = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=filling)
    views = np.lib.stride_tricks.sliding_window_view(x, (reach[0] + 1, reach[1] + 1), axis=(2, 3))
    return views[:, :, :: stride[0], :: stride[1], ::dilation, ::dilation]


def conv(x: Array, w: Array, stride: tuple[int, int] = (1, 1), dilation: int = 1) -> Array:
    """Convolution with w (O, I, kh, kw), depthwise where I is 1 and x has several channels."""
    views = windows(x, (w.shape[2], w.shape[3]), stride, dilation, 0.0)
    if w.shape[1] == 1 and x.shape[1] > 1:
        return np.einsum("bchwij,cij->bchw", views, w[:, 0])
    return np.moveaxis(np.tensordot(views, w, axes=([1, 4, 5], [1, 2, 3])), -1, 1)


def pool(x: Array, kind: str, stride: int) -> Array:
    """3 x 3; padding is excluded from maximum and mean."""
    if kind == "max":
        return windows(x, (3, 3), (stride, stride), 1, -np.inf).max((4, 5))
    return np.nanmean(windows(x, (3, 3), (stride, stride), 1, np.nan), axis=(4, 5))


class LiteralNetwork:
    """The network of `args` with parameters (out, in, height, width) or (size,) by path."""

    def __init__(self, args: NetworkArgs, params: Mapping[tuple[str, ...], Array]) -> None:
        self.args = args
        self.params = params

    def kernel(self, *path: str) -> Array:
        return self.params[*path, "kernel"]

    def bn(self, x: Array, *path: str) -> Array:
        if self.args.norm is None:
            return x
        x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        scale, bias = self.params[*path, "scale"], self.params[*path, "bias"]
        return x * scale[:, None, None] + bias[:, None, None]

    def ln(self, x: Array, *path: str) -> Array:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.params[*path, "scale"] + self.params[*path, "bias"]

    def linear(self, x: Array, *path: str) -> Array:
        y = x @ self.kernel(*path)[:, :, 0, 0].T
        return y + self.params[*path, "bias"] if (*path, "bias") in self.params else y

    def factorised_reduction(self, x: Array, *path: str) -> Array:
        x = relu(x)
        shifted = np.pad(x, ((0, 0), (0, 0), (0, x.shape[2] % 2), (0, x.shape[3] % 2)))[:, :, 1:, 1:]
        halves = [conv(x, self.kernel(*path, "conv_1"), (2, 2)), conv(shifted, self.kernel(*path, "conv_2"), (2, 2))]
        return self.bn(np.concatenate(halves, axis=1), *path, "bn")

    def conv_bn(self, x: Array, stride: int, *path: str) -> Array:
        return self.bn(conv(relu(x), self.kernel(*path, "op_1"), (stride, stride)), *path, "op_2")

    def separable(self, x: Array, stride: int, dilation: int, first: int, *path: str) -> Array:
        x = conv(relu(x), self.kernel(*path, f"op_{first}"), (stride, stride), dilation)
        x = conv(x, self.kernel(*path, f"op_{first + 1}"))
        return self.bn(x, *path, f"op_{first + 2}")

    def attention_block(self, x: Array, *path: str) -> Array:
        batch, channels, height, width = x.shape
        tokens = x.reshape(batch, channels, -1).transpose(0, 2, 1)
        qkv = self.linear(self.ln(tokens, *path, "ln1"), *path, "to_qkv")
        q, k, v = (part.reshape(batch, -1, HEADS, channels // HEADS) for part in np.split(qkv, 3, axis=-1))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(channels // HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), v)
        tokens = tokens + self.linear(mixed.reshape(tokens.shape), *path, "to_out_0")
        hidden = self.linear(self.ln(tokens, *path, "ln2"), *path, "ff", "net_0")
        hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
        tokens = tokens + self.linear(hidden, *path, "ff", "net_3")
        return tokens.transpose(0, 2, 1).reshape(batch, channels, height, width)

    def gate(self, x: Array, stride: int, *path: str) -> Array:
        gate = self.linear(relu(self.linear(x.mean((2, 3)), *path, "fc1")), *path, "fc2")
        gate = gate * np.clip(gate + 3, 0, 6) / 6
        return x[:, :, ::stride, ::stride] * gate[:, :, None, None]

    def op(self, name: str, x: Array, stride: int, *path: str) -> Array:
        family = name.rpartition("_")[0]
        runs: dict[str, Callable[[], Array]] = {
            "skip": lambda: x if stride == 1 else self.factorised_reduction(x, *path),
            "max_pool": lambda: pool(x, "max", stride),
            "avg_pool": lambda: pool(x, "avg", stride),
            "sep_conv": lambda: self.separable(self.separable(x, stride, 1, 1, *path), 1, 1, 5, *path),
            "dil_conv": lambda: self.separable(x, stride, 2, 1, *path),
            "conv": lambda: self.conv_bn(x, stride, *path),
            "conv_7x1": lambda: self.factorised_conv(x, stride, *path),
            "msa": lambda: self.attention_block(x, *path),
            "cse": lambda: self.gate(x, stride, *path),
        }
        return runs[family or name]()

    def factorised_conv(self, x: Array, stride: int, *path: str) -> Array:
        x = conv(relu(x), self.kernel(*path, "op_1"), (1, stride))
        return self.bn(conv(x, self.kernel(*path, "op_2"), (stride, 1)), *path, "op_3")

    def stem(self, x: Array) -> tuple[Array, Array]:
        """Stems for small images."""
        if self.args.is_transformer:
            x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::3, ::3]
            x = np.moveaxis(np.tensordot(views, self.kernel("stem0"), axes=([1, 4, 5], [1, 2, 3])), -1, 1)
            x = x + self.params["pos_enc", "table"]
            return x, x
        if self.args.stem_type == 0:
            x = self.bn(conv(x, self.kernel("stem_0")), "stem_1")
            x = pool(x, "max", 2) if self.args.stem_pool else x
            return x, x
        x = self.bn(conv(x, self.kernel("stem0_0")), "stem0_1")
        s0 = self.bn(conv(relu(x), self.kernel("stem0_3")), "stem0_4")
        return s0, self.bn(conv(relu(s0), self.kernel("stem1_1"), (2, 2)), "stem1_2")

    def preprocess(self, value: Value | None, which: int, halve: bool, cell: str) -> Value | None:
        if value is None:
            return None
        path = (cell, f"preprocess{which}")
        if not self.args.preproc:
            return functools.cache(lambda: value()[:, :, ::2, ::2]) if halve else value
        if halve:
            return functools.cache(lambda: self.factorised_reduction(value(), *path))
        return functools.cache(lambda: self.conv_bn(value(), 1, *path))

    def cell(self, index: int, s0: Value | None, s1: Value | None, halve: bool, width: int) -> Value | None:
        args, name, genotype = self.args, f"cells_{index}", self.args.genotype
        reduction = index in reductions(args)
        steps = genotype.reduce if reduction else genotype.normal
        states = [self.preprocess(s0, 0, halve, name), self.preprocess(s1, 1, False, name)]
        for place in range(0, len(steps), 2):
            branches: list[Value] = []
            for branch in (place, place + 1):
                op, source = steps[branch]
                x = states[source]
                stride = 2 if reduction and source < 2 and not args.is_transformer else 1
                if x is not None and op != "none":
                    run = functools.partial(self._run, op, x, stride, (name, f"ops_{branch}"))
                    branches.append(functools.cache(run))
            states.append(functools.cache(functools.partial(_sum, branches)) if branches else None)
        outputs = [states[i] for i in (genotype.reduce_concat if reduction else genotype.normal_concat)]
        if all(value is None for value in outputs):
            return None
        return functools.cache(functools.partial(_concat, outputs, width))

    def _run(self, op: str, x: Value, stride: int, path: tuple[str, ...]) -> Array:
        return self.op(op, x(), stride, *path)

    def logits(self, images: Array) -> Array:
        """(B, K) from images (B, 3, H, W)."""
        args = self.args
        first, second = self.stem(np.asarray(images, np.float64))
        s0: Value | None = lambda: first  # noqa: E731
        s1: Value | None = lambda: second  # noqa: E731
        after_reduction, width = args.stem_type == 1, args.C
        for index in range(args.n_cells):
            reduction = index in reductions(args)
            width *= args.C_mult if reduction else 1
            halve = after_reduction and not args.is_transformer
            s0, s1 = s1, self.cell(index, s0, s1, halve, width)
            after_reduction = reduction
        assert s1 is not None
        x = s1()
        x = x.mean((2, 3)) if args.glob_avg else x.reshape(len(x), -1)
        for layer in range(args.fc_layers):
            x = self.linear(relu(x) if layer else x, f"classifier_{3 * layer}")
        return x


def reductions(args: NetworkArgs) -> set[int]:
    """Cells that halve the image."""
    return {args.n_cells // 3, 2 * args.n_cells // 3} - {0}


def _sum(branches: list[Value]) -> Array:
    return branches[0]() if len(branches) == 1 else branches[0]() + branches[1]()


def _concat(outputs: list[Value | None], width: int) -> Array:
    """Steps that are zero have the cell's width."""
    alive = [None if value is None else value() for value in outputs]
    like = next(x for x in alive if x is not None)
    zeros = np.zeros((like.shape[0], width, *like.shape[2:]))
    return np.concatenate([zeros if x is None else x for x in alive], axis=1)
