"""The parts of a DeepNets-1M network in the order in which they run: stems, cells, classifier, and what each reads.

The one place that knows how cells are set into a network; graphs, plans and numbers of weights are made from it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ghn_jax.deepnets import ends
from ghn_jax.deepnets.cell import Cell
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.liveness import LiveCell, live_cells, whole_cell
from ghn_jax.deepnets.recipes import Recipe

IMAGES = 0
"""Value id of the images."""


class Part(NamedTuple):
    """A part of a network; the output of part i is value i + 1.

    Attributes:
      name: where its parameters lie in the network's tree; "" for the root.
      recipe: what it does.
      inputs: ids of the values that it reads.
      kind: "stem", "cell", "classifier" or "auxiliary head".
      cell: number of its cell; stems count to the first, the classifier to the last.
    """

    name: str
    recipe: Recipe
    inputs: tuple[int, ...]
    kind: str
    cell: int


def live_parts(args: NetworkArgs, name: str = "network", *, auxiliary: bool = False) -> list[Part]:
    """What reaches the logits, which are the output of the part "classifier"; dead ops are left out.

    Args:
      args: the network.
      name: of the architecture, for errors.
      auxiliary: whether an auxiliary head behind two thirds of the cells is one more part.

    Raises:
      ValueError: if the last cell outputs nothing, or nothing uses the cell that the auxiliary head reads.
    """
    live = live_cells(args)
    if live is None:
        raise ValueError(
            f"architecture {name!r}: its last cell outputs nothing, all steps that it concatenates are zero; "
            "choose a genotype with fewer `none`"
        )
    parts, outputs = _parts(args, live)
    if auxiliary:
        source = 2 * args.n_cells // 3
        if not live[source].concat:
            raise ValueError(
                f"architecture {name!r}: the auxiliary head reads cell {source}, which does not reach the output"
            )
        head = ends.AuxiliaryHead(args.num_classes)
        parts.append(Part("auxiliary_head", head, (outputs[source],), "auxiliary head", source))
    return parts


def all_parts(args: NetworkArgs) -> list[Part]:
    """What the network allocates, ops without effect included."""
    kinds = [whole_cell(args.genotype, reduces) for reduces in (False, True)]
    reductions = args.reduction_cells
    return _parts(args, [kinds[number in reductions] for number in range(args.n_cells)])[0]


def _parts(args: NetworkArgs, cells: Sequence[LiveCell]) -> tuple[list[Part], list[int]]:
    """The parts, and the value that each cell gives (one that is not used hands on its last input's id, unread)."""
    parts = _stems(args, cells[0].inputs[1] or (len(cells) > 1 and cells[1].inputs[0]))
    before, last = (1, len(parts))
    reductions, tokens, preproc = args.reduction_cells, args.is_transformer, args.preproc
    early = not preproc and args.genotype.steps == 1  # the cell before a reduction is as wide as the reduction
    width, after_reduction = args.C, args.stem_type == 1
    outputs: list[int] = []
    for number, kept in enumerate(cells):
        reduces = number in reductions
        width *= args.C_mult if reduces else 1
        if kept.concat:
            own = width * args.C_mult if early and number + 1 in reductions else width
            stride = 2 if reduces and not tokens else 1
            cell = Cell(kept, preproc, own, stride, after_reduction and not tokens)
            inputs = tuple(value for value, used in zip((before, last), kept.inputs, strict=True) if used)
            parts.append(Part(f"cells_{number}", cell, inputs, "cell", number))
        before, last = last, len(parts)
        outputs.append(last)
        after_reduction = reduces
    hidden = (args.fc_dim,) * (args.fc_layers - 1)
    head = ends.Classifier(args.num_classes, hidden, args.glob_avg)
    parts.append(Part("", head, (last,), "classifier", args.n_cells - 1))
    return parts, outputs


def _stems(args: NetworkArgs, second_used: bool) -> list[Part]:
    """One part whose output is both s0 and s1 of the first cell, or one for each."""
    large, width = args.is_large_image, args.C
    if args.is_transformer:
        return [Part("", ends.TransformerStem(width, large), (IMAGES,), "stem", 0)]
    if args.stem_type == 0:
        width *= 3 if args.preproc and not large else 1
        return [Part("", ends.SimpleStem(width, args.ks, large, args.stem_pool), (IMAGES,), "stem", 0)]
    first = Part("", ends.DoubleStem(width, args.ks, large), (IMAGES,), "stem", 0)
    return [first, Part("", ends.SecondStem(width), (1,), "stem", 0)] if second_used else [first]
