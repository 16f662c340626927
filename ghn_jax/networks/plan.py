"""The static list of layer calls that makes up a network."""

import dataclasses
import functools

import flax.linen as nn

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.networks import ends, layers, transformer
from ghn_jax.networks.layers import Norm

IMAGES = 0
"""Value id of the images."""


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One layer at its place in a network.

    Attributes:
      prefix: where the layer's parameters lie in the network's tree; () for the root.
      layer: the module, which holds no name and no parent.
      inputs: ids of the values that it takes.
      output: id of the value that it gives.
      kind: name of the op, for reports.
      branch: whether drop-path applies to the output: the op of a cell, unless it is an identity.
    """

    prefix: tuple[str, ...]
    layer: nn.Module
    inputs: tuple[int, ...]
    output: int
    kind: str
    branch: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """Layer calls of one network in an order in which they can run; value 0 is the images.

    Attributes:
      calls: the calls, none of which is without effect on the output.
      output: id of the logits.
      auxiliary: id of the value that an auxiliary head reads, if it is alive.
    """

    calls: tuple[LayerCall, ...]
    output: int
    auxiliary: int | None = None


@dataclasses.dataclass(frozen=True)
class _Value:
    """A value in the making: its id and its width."""

    id: int
    width: int


class _Builder:
    """Collects calls; None stands for zero throughout."""

    def __init__(self, args: NetworkArgs, norm: Norm | None) -> None:
        self.args = args
        self.norm = norm
        self.calls: list[LayerCall] = []

    def call(
        self,
        prefix: tuple[str, ...],
        layer: nn.Module,
        inputs: tuple[_Value, ...],
        width: int,
        *,
        kind: str,
        branch: bool = False,
    ) -> _Value:
        output = len(self.calls) + 1
        self.calls.append(LayerCall(prefix, layer, tuple(v.id for v in inputs), output, kind, branch))
        return _Value(output, width)

    def stem(self) -> tuple[_Value, _Value]:
        args, images = self.args, _Value(IMAGES, 3)
        large = args.is_large_image
        if args.is_transformer:
            out = self.call((), ends.TransformerStem(args.C, large, parent=None), (images,), args.C, kind="stem")
            return out, out
        if args.stem_type == 0:
            width = 3 * args.C if args.preproc and not large else args.C
            stem = ends.SimpleStem(width, args.ks, large, args.stem_pool, self.norm, parent=None)
            out = self.call((), stem, (images,), width, kind="stem")
            return out, out
        first = ends.DoubleStem(args.C, args.ks, large, self.norm, parent=None)
        s0 = self.call((), first, (images,), args.C, kind="stem")
        s1 = self.call((), ends.SecondStem(args.C, self.norm, parent=None), (s0,), args.C, kind="stem")
        return s0, s1

    def preprocess(self, cell: str, which: int, value: _Value | None, width: int, halve: bool) -> _Value | None:
        if value is None:
            return None
        if not self.args.preproc:
            return self.call((), layers.Stride(parent=None), (value,), value.width, kind="stride") if halve else value
        if halve:
            layer = layers.FactorisedReduction(width, self.norm, parent=None)
        else:
            layer = layers.ReLUConvBN(width, 1, 1, self.norm, parent=None)
        return self.call((cell, f"preprocess{which}"), layer, (value,), width, kind="preproc")

    def op(self, cell: str, place: int, name: str, value: _Value | None, *, width: int, stride: int) -> _Value | None:
        if value is None or name == "none":
            return None
        if name == "skip_connect" and stride == 1:
            return value
        layer, width = op_layer(name, value.width, width, stride, self.norm)
        return self.call((cell, f"ops_{place}"), layer, (value,), width, kind=name, branch=True)

    def add(self, cell: str, x: _Value | None, y: _Value | None) -> _Value | None:
        if x is None or y is None:
            return x or y
        if x.width != y.width:
            raise ValueError(
                f"network arguments: {cell} adds {x.width} and {y.width} channels; without preproc, C_mult must be 1"
            )
        return self.call((), layers.Add(parent=None), (x, y), x.width, kind="sum")

    def cell(self, index: int, s0: _Value | None, s1: _Value | None, width: int, halve_s0: bool) -> _Value | None:
        args = self.args
        name = f"cells_{index}"
        reduction = index in args.reduction_cells
        genotype = args.genotype
        steps, concat = (
            (genotype.reduce, genotype.reduce_concat) if reduction else (genotype.normal, genotype.normal_concat)
        )
        states = [self.preprocess(name, 0, s0, width, halve_s0), self.preprocess(name, 1, s1, width, False)]
        for place in range(0, len(steps), 2):
            branches = []
            for offset in (0, 1):
                op, source = steps[place + offset]
                stride = 2 if reduction and source < 2 and not args.is_transformer else 1
                branches.append(self.op(name, place + offset, op, states[source], width=width, stride=stride))
            states.append(self.add(name, *branches))
        outputs = [states[i] for i in concat]
        alive = tuple(value for value in outputs if value is not None)
        if not alive:
            return None
        if len(outputs) == 1:
            return alive[0]
        layer = layers.Concat(tuple(None if value else width for value in outputs), parent=None)
        total = sum(value.width if value else width for value in outputs)
        return self.call((), layer, alive, total, kind="concat")

    def network(self) -> Plan:
        args = self.args
        s0: _Value | None
        s1: _Value | None
        s0, s1 = self.stem()
        width = args.C
        after_reduction = args.stem_type == 1
        auxiliary = None
        for index in range(args.n_cells):
            reduction = index in args.reduction_cells
            width *= args.C_mult if reduction else 1
            early = not args.preproc and args.genotype.steps == 1 and index + 1 in args.reduction_cells
            out_width = width * args.C_mult if early else width
            halve_s0 = after_reduction and not args.is_transformer
            s0, s1 = s1, self.cell(index, s0, s1, out_width, halve_s0)
            after_reduction = reduction
            if index == 2 * args.n_cells // 3:
                auxiliary = s1.id if s1 else None
        if s1 is None:
            raise ValueError("network arguments: the last cell outputs nothing, all its steps are zero")
        hidden = (args.fc_dim,) * (args.fc_layers - 1)
        head = ends.Classifier(args.num_classes, hidden, args.glob_avg, parent=None)
        logits = self.call((), head, (s1,), args.num_classes, kind="classifier")
        return _alive(self.calls, logits.id, auxiliary)


_CONVOLUTIONS = {"conv": layers.ReLUConvBN, "sep_conv": layers.SeparableConv, "dil_conv": layers.DilatedConv}


def op_layer(name: str, in_width: int, width: int, stride: int, norm: Norm | None) -> tuple[nn.Module, int]:
    """Module of op `name` and the width of its output, which for some ops is that of the input."""
    family, _, size = name.rpartition("_")
    layer: nn.Module
    if name == "conv_7x1_1x7":
        layer = layers.FactorisedConv(width, stride, norm, parent=None)
    elif name == "skip_connect":
        layer = layers.FactorisedReduction(width, norm, parent=None)
    elif family in _CONVOLUTIONS:
        layer = _CONVOLUTIONS[family](width, int(size[0]), stride, norm, parent=None)
    else:
        width = in_width
        if name == "cse":
            layer = layers.SqueezeExcitation(stride, parent=None)
        elif name == "msa":
            layer = transformer.Attention(parent=None)
        else:
            layer = layers.Pool(name.partition("_")[0], stride, parent=None)
    return layer, width


def _alive(calls: list[LayerCall], output: int, auxiliary: int | None) -> Plan:
    """Keeps what the output depends on and numbers values densely."""
    needed = {output}
    kept = []
    for call in reversed(calls):
        if call.output in needed:
            needed.update(call.inputs)
            kept.append(call)
    ids = {IMAGES: IMAGES}
    renumbered = []
    for call in reversed(kept):
        ids[call.output] = len(ids)
        inputs = tuple(ids[i] for i in call.inputs)
        renumbered.append(dataclasses.replace(call, inputs=inputs, output=ids[call.output]))
    return Plan(tuple(renumbered), ids[output], ids.get(auxiliary) if auxiliary is not None else None)


@functools.lru_cache(maxsize=4096)
def network_plan(args: NetworkArgs, momentum: float | None = None) -> Plan:
    """Layer calls of the network of `args`; ops that do not reach the output are not in it.

    Args:
      args: the network.
      momentum: of running statistics in batch normalisation; None for statistics of the batch always.

    Raises:
      ValueError: if the last cell outputs nothing, or widths that are added differ.
    """
    return _Builder(args, None if args.norm is None else Norm(momentum)).network()
