"""Number of weights of a network by arithmetic, operations without effect included (as the release counts)."""

from ghn_jax.deepnets.genotype import NetworkArgs


def parameter_count(args: NetworkArgs) -> int:
    """Weights that the network allocates: those of its graph and those of operations that do not reach its output."""
    norm = 2 if args.norm is not None else 0
    total, before, last = _stem(args, norm)
    reductions = args.reduction_cells
    genotype = args.genotype
    width = args.C
    for number in range(args.n_cells):
        reduces = number in reductions
        width *= args.C_mult if reduces else 1
        widens = number + 1 in reductions and not args.preproc and genotype.steps == 1
        out = width * args.C_mult if widens else width
        first, second = before, last
        if args.preproc:
            after_reduction = number - 1 in reductions if number else args.stem_type == 1
            first_out = 2 * (out // 2) if after_reduction and not args.is_transformer else out
            total += first * first_out + second * out + 2 * norm * out
            first = second = out
        steps, concat = (
            (genotype.reduce, genotype.reduce_concat) if reduces else (genotype.normal, genotype.normal_concat)
        )
        widths = (first, second)
        strided = reduces and not args.is_transformer
        for op, index in steps:
            total += _operation(op, widths[index] if index < 2 else out, out, strided and index < 2, norm)
        before, last = last, sum(widths[index] if index < 2 else out for index in concat)
    return total + _head(args, last)


def _stem(args: NetworkArgs, norm: int) -> tuple[int, int, int]:
    """Weights, and the widths of s0 and s1."""
    width = args.C
    if args.is_transformer:
        kernel = 16 if args.is_large_image else 3
        return width * (3 * kernel**2 + args.token_grid**2), width, width
    if args.stem_type == 0:
        width *= 3 if args.preproc and not args.is_large_image else 1
        return width * (3 * args.ks**2 + norm), width, width
    half = width // 2
    return half * (3 * args.ks**2 + norm) + width * (9 * half + norm) + width * (9 * width + norm), width, width


def _operation(op: str, into: int, out: int, strided: bool, norm: int) -> int:
    if op == "skip_connect":
        return 2 * (out // 2) * into + norm * out if strided else 0
    if op == "msa":
        return 6 * into**2 + 7 * into
    if op == "cse":
        return 2 * into * (into // 2) + into // 2 + into
    return _convolution(op, into, out, norm) if "conv" in op else 0


def _convolution(op: str, into: int, out: int, norm: int) -> int:
    if op == "conv_7x1_1x7":
        return 7 * (into + out) * out + norm * out
    area = int(op[-1]) ** 2
    if op.startswith("sep"):
        return 2 * area * into + into**2 + norm * into + into * out + norm * out
    if op.startswith("dil"):
        return area * into + into * out + norm * out
    return area * into * out + norm * out


def _head(args: NetworkArgs, width: int) -> int:
    if not args.glob_avg:
        width *= _final_size(args) ** 2
    total = 0
    for _ in range(args.fc_layers - 1):
        total += (width + 1) * args.fc_dim
        width = args.fc_dim
    return total + (width + 1) * args.num_classes


def _final_size(args: NetworkArgs) -> int:
    """Height and width of the last cell's output."""
    if args.is_transformer:
        return args.token_grid
    halvings = len(args.reduction_cells)
    if args.is_large_image:
        halvings += 2
    halvings += 1 if args.stem_type == 1 or args.stem_pool else 0
    size = args.image_size
    for _ in range(halvings):
        size = -(-size // 2)
    return size
