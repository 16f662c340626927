"""Architecture graph of a DeepNets-1M network, from its arguments alone (SPEC: target networks, DeepNets-1M)."""

import dataclasses

from ghn_jax.deepnets.builder import GraphBuilder, Value
from ghn_jax.deepnets.cell_ops import OPERATIONS, factorised_reduction, relu_conv_norm
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.liveness import LiveCell, live_cells
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.vocabulary import Primitive


def network_graph(args: NetworkArgs, name: str = "network") -> ArchGraph:
    """True dataflow graph of a network: what its output depends on, and nothing else.

    Args:
      args: arguments of the network.
      name: name of the graph, used in errors.

    Raises:
      ValueError: if the output does not depend on the input, or if widths or sizes of added values differ.
    """
    return build_network(args, name).finish()


def build_network(args: NetworkArgs, name: str) -> GraphBuilder:
    """As `network_graph`, before it is made final: the builder knows the cell of every node."""
    live = live_cells(args)
    if live is None:
        raise ValueError(
            f"architecture {name!r}: its last cell outputs nothing, all steps that it concatenates are zero; "
            "choose a genotype with fewer `none`"
        )
    build = GraphBuilder(name, args.norm is not None)
    stem1_used = live[0].inputs[1] or (len(live) > 1 and live[1].inputs[0])
    before, last = _stem(build, args, stem1_used)
    reductions = args.reduction_cells
    width = args.C
    for number, kept in enumerate(live):
        build.cell = number
        reduces = number in reductions
        width *= args.C_mult if reduces else 1
        after_reduction = number - 1 in reductions if number else args.stem_type == 1
        widens = number + 1 in reductions and not args.preproc and args.genotype.steps == 1
        frame = _Frame(
            width=width * args.C_mult if widens else width,
            preproc=args.preproc,
            stride=2 if reduces and not args.is_transformer else 1,
            shrinks_first=after_reduction and not args.is_transformer,
        )
        before, last = last, _cell(build, kept, (before, last), frame) if kept.concat else None
    if last is not None:
        _head(build, args, last)
    return build


@dataclasses.dataclass(frozen=True, slots=True)
class _Frame:
    """How a cell is set into its network: its width, the stride of ops on its inputs, what is done to its inputs."""

    width: int
    preproc: bool
    stride: int
    shrinks_first: bool


def _stem(build: GraphBuilder, args: NetworkArgs, stem1_used: bool) -> tuple[Value, Value | None]:
    """Inputs s0 and s1 of the first cell."""
    large, width = args.is_large_image, args.C
    image = Value(0, 3, args.image_size)
    if args.is_transformer:
        kernel = 16 if large else 3
        x = build.conv(image, ("stem0",), width, (kernel, kernel), stride=kernel)
        x = build.add_position_table(x._replace(size=args.token_grid), ("pos_enc",))
        return x, x
    kernel = (args.ks, args.ks)
    if args.stem_type == 0:
        if args.preproc and not large:
            width *= 3
        x = build.norm(build.conv(image, ("stem_0",), width, kernel, stride=4 if large else 1), ("stem_1",))
        if args.stem_pool:
            x = build.pool(x, stride=2)
        return x, x
    stride = 2 if large else 1
    x = build.norm(build.conv(image, ("stem0_0",), width // 2, kernel, stride=stride), ("stem0_1",))
    x = build.norm(build.conv(x, ("stem0_3",), width, (3, 3), stride=stride), ("stem0_4",))
    if not stem1_used:
        return x, None
    return x, build.norm(build.conv(x, ("stem1_1",), width, (3, 3), stride=2), ("stem1_2",))


def _cell(build: GraphBuilder, kept: LiveCell, inputs: tuple[Value | None, Value | None], frame: _Frame) -> Value:
    """Output of one cell that is used."""
    prefix = f"cells_{build.cell}"
    width = frame.width
    states: list[Value | None] = []
    for index in (0, 1):
        x = inputs[index] if kept.inputs[index] else None
        if x is not None:
            shrinks = frame.shrinks_first and index == 0
            if frame.preproc:
                project = factorised_reduction if shrinks else relu_conv_norm
                x = project(build, x, (prefix, f"preprocess{index}"), width)
            elif shrinks:
                x = x._replace(size=-(-x.size // 2))
        states.append(x)
    for step in range(len(kept.steps) // 2):
        total = None
        for place in (2 * step, 2 * step + 1):
            chosen = kept.steps[place]
            x = states[chosen[1]] if chosen else None
            if chosen and x is not None:
                stride = frame.stride if chosen[1] < 2 else 1
                y = OPERATIONS[chosen[0]](build, x, (prefix, f"ops_{place}"), width, stride)
                total = y if total is None else build.add(total, y)
        states.append(total)
    parts = [None if index is None else states[index] for index in kept.concat]
    return build.concat(
        [part for part in parts if part is not None], sum(width if part is None else part.width for part in parts)
    )


def _head(build: GraphBuilder, args: NetworkArgs, x: Value) -> None:
    """Pooling or flattening and the classifier."""
    if args.glob_avg:
        x = Value(build.node(int(Primitive.GLOB_AVG), x.node), x.width, 1)
    else:
        x = Value(x.node, x.width * x.size**2, 1)
    for layer in range(args.fc_layers - 1):
        x = build.dense(x, (f"classifier_{3 * layer}",), args.fc_dim)
    build.dense(x, (f"classifier_{3 * (args.fc_layers - 1)}",), args.num_classes, classifier=True)
