"""Architecture graph of a DeepNets-1M network, from its arguments alone (SPEC: target networks, DeepNets-1M)."""

from ghn_jax.deepnets.builder import GraphBuilder, Value
from ghn_jax.deepnets.cell_ops import factorised_reduction, operation, relu_conv_norm
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
        raise ValueError(f"architecture {name!r}: its last cell outputs nothing, all concatenated steps are zero")
    build = GraphBuilder(name)
    build.node(Primitive.INPUT)
    previous, last = _stem(build, args, (live[0].inputs[0], live[0].inputs[1] or len(live) > 1 and live[1].inputs[0]))
    reductions = args.reduction_cells
    width = args.C
    for number, cell in enumerate(live):
        build.cell = number
        reduces = number in reductions
        width *= args.C_mult if reduces else 1
        after_reduction = (number - 1) in reductions or (number == 0 and args.stem_type == 1)
        early = not args.preproc and args.genotype.steps == 1 and number + 1 in reductions
        output = None
        if cell.concat:
            output = _cell(
                build, args, cell, (previous, last), width * (args.C_mult if early else 1), reduces, after_reduction
            )
        previous, last = last, output
    if last is None:
        raise ValueError(f"architecture {name!r}: its last cell outputs nothing")
    _head(build, args, last)
    return build


def _stem(build: GraphBuilder, args: NetworkArgs, used: tuple[bool, bool]) -> tuple[Value | None, Value | None]:
    """Inputs s0 and s1 of the first cell."""
    batch_norm = args.norm is not None
    large, C = args.is_large_image, args.C
    image = Value(0, 3, args.image_size)
    if args.is_transformer:
        kernel = 16 if large else 3
        x = build.conv(image, ("stem0",), C, (kernel, kernel), size=args.token_grid)
        x = build.position_table(x, ("pos_enc",))
        return x, x
    if args.stem_type == 0:
        x = build.conv(image, ("stem_0",), C * (3 if args.preproc and not large else 1), (args.ks, args.ks), 4 if large else 1)
        if batch_norm:
            x = build.norm(x, ("stem_1",))
        if args.stem_pool:
            x = Value(build.node(Primitive.MAX_POOL, x.node, shape=(1, 1, 3, 3)), x.width, -(-x.size // 2))
        return x, x
    stride = 2 if large else 1
    x = build.conv(image, ("stem0_0",), C // 2, (args.ks, args.ks), stride)
    if batch_norm:
        x = build.norm(x, ("stem0_1",))
    x = build.conv(x, ("stem0_3",), C, (3, 3), stride)
    if batch_norm:
        x = build.norm(x, ("stem0_4",))
    if not used[1]:
        return x, None
    y = build.conv(x, ("stem1_1",), C, (3, 3), 2)
    if batch_norm:
        y = build.norm(y, ("stem1_2",))
    return x, y


def _cell(
    build: GraphBuilder,
    args: NetworkArgs,
    cell: LiveCell,
    inputs: tuple[Value | None, Value | None],
    width: int,
    reduces: bool,
    after_reduction: bool,
) -> Value:
    """Output of one cell that is used."""
    batch_norm = args.norm is not None
    prefix = f"cells_{build.cell}"
    shrinks = after_reduction and not args.is_transformer
    states: list[Value | None] = []
    for index, (x, used) in enumerate(zip(inputs, cell.inputs, strict=True)):
        if x is None or not used:
            states.append(None)
            continue
        path = (prefix, f"preprocess{index}")
        if shrinks and index == 0:
            if args.preproc:
                x = factorised_reduction(build, x, path, width, batch_norm)
            else:
                x = x._replace(size=-(-x.size // 2))
        elif args.preproc:
            x = relu_conv_norm(build, x, path, width, batch_norm)
        states.append(x)
    for step in range(len(cell.steps) // 2):
        total = None
        for place in (2 * step, 2 * step + 1):
            kept = cell.steps[place]
            x = None if kept is None else states[kept[1]]
            if kept is None or x is None:
                continue
            stride = 2 if reduces and kept[1] < 2 and not args.is_transformer else 1
            y = operation(build, kept[0], x, (prefix, f"ops_{place}"), width, stride, batch_norm)
            total = y if total is None else build.add(total, y)
        states.append(total)
    parts = [states[index] if index is not None else None for index in cell.concat]
    full = [part for part in parts if part is not None]
    return build.concat(full, sum(width if part is None else part.width for part in parts))


def _head(build: GraphBuilder, args: NetworkArgs, x: Value) -> None:
    """Pooling or flattening and the classifier."""
    if args.glob_avg:
        x = Value(build.node(Primitive.GLOB_AVG, x.node), x.width, 1)
    else:
        x = Value(x.node, x.width * x.size**2, 1)
    for layer in range(args.fc_layers - 1):
        x = build.dense(x, (f"classifier_{3 * layer}",), args.fc_dim)
    build.dense(x, (f"classifier_{3 * (args.fc_layers - 1)}",), args.num_classes, classifier=True)
