"""Which operations of a network have an effect: zeros run forward from `none`, use runs backward from the output."""

import dataclasses

from ghn_jax.deepnets.genotype import Genotype, NetworkArgs, Step

States = tuple[bool, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class LiveCell:
    """What is left of one cell.

    Attributes:
      steps: (op, index) as in the genotype, 2 a step; None where an op is zero or its step is not used.
      inputs: whether each of the two inputs is used.
      concat: indices that are concatenated; None in place of a step that is zero. Empty if the cell is not used.
    """

    steps: tuple[Step | None, ...]
    inputs: tuple[bool, bool]
    concat: tuple[int | None, ...]


def reaches_output(args: NetworkArgs) -> bool:
    """Whether the last cell outputs anything: false if all the steps that it concatenates are zero."""
    genotype = args.genotype
    if not any(op == "none" for op, _ in (*genotype.normal, *genotype.reduce)):
        return True
    _, concat = _cell(genotype, args.n_cells - 1 in args.reduction_cells)
    states = _forward(args)[-1]
    return any(states[i] for i in concat)


def live_cells(args: NetworkArgs) -> list[LiveCell] | None:
    """What is left of each cell; None if the last cell outputs nothing."""
    if not reaches_output(args):
        return None
    reductions = args.reduction_cells
    nonzero = _forward(args)
    used = [False] * (args.n_cells - 1) + [True]
    seen: dict[tuple[bool, States], LiveCell] = {}  # most cells of a network are alike
    cells: list[LiveCell] = []
    for number in reversed(range(args.n_cells)):
        key = (number in reductions, nonzero[number])
        if not used[number]:
            cell = _UNUSED
        elif key in seen:
            cell = seen[key]
        else:
            cell = seen[key] = _used_part(*_cell(args.genotype, key[0]), key[1])
        cells.append(cell)
        for offset, needed in zip((2, 1), cell.inputs, strict=True):
            if needed and number >= offset:
                used[number - offset] = True
    return cells[::-1]


def whole_cell(genotype: Genotype, reduction: bool) -> LiveCell:
    """A cell of which everything is kept, also what has no effect: what a network allocates."""
    steps, concat = _cell(genotype, reduction)
    return LiveCell(steps, (True, True), concat)


def _forward(args: NetworkArgs) -> list[States]:
    """For every cell, which of its states (two inputs, then steps) are not zero."""
    reductions = args.reduction_cells
    seen: dict[tuple[bool, bool, bool], tuple[States, bool]] = {}
    nonzero: list[States] = []
    before, last = True, True
    for number in range(args.n_cells):
        key = (number in reductions, before, last)
        if key not in seen:
            steps, concat = _cell(args.genotype, key[0])
            states = _nonzero_states(steps, before, last)
            seen[key] = states, any(states[i] for i in concat)
        states, output = seen[key]
        nonzero.append(states)
        before, last = last, output
    return nonzero


_UNUSED = LiveCell((), (False, False), ())


def _cell(genotype: Genotype, reduction: bool) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    if reduction:
        return genotype.reduce, genotype.reduce_concat
    return genotype.normal, genotype.normal_concat


def _nonzero_states(steps: tuple[Step, ...], first: bool, second: bool) -> States:
    states = [first, second]
    for (left, i), (right, j) in zip(steps[::2], steps[1::2], strict=True):
        states.append((left != "none" and states[i]) or (right != "none" and states[j]))
    return tuple(states)


def _used_part(steps: tuple[Step, ...], concat: tuple[int, ...], nonzero: States) -> LiveCell:
    used = [False] * len(nonzero)
    for i in concat:
        used[i] = True
    kept: list[Step | None] = [None] * len(steps)
    for place in reversed(range(len(steps))):
        op, index = steps[place]
        if used[2 + place // 2] and op != "none" and nonzero[index]:
            kept[place] = steps[place]
            used[index] = True
    inputs = (used[0] and nonzero[0], used[1] and nonzero[1])
    return LiveCell(tuple(kept), inputs, tuple(i if nonzero[i] else None for i in concat))
