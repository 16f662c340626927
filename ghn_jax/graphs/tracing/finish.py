"""From the nodes that the rules collected to an `ArchGraph`: contraction, dead ends, classifier, leaves left out."""

import itertools
from collections.abc import Sequence

from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import KeptParam, ParamSpec, Role
from ghn_jax.graphs.tracing.builder import Candidate, TraceBuilder
from ghn_jax.graphs.tracing.values import Data, Leaf, Value
from ghn_jax.graphs.vocabulary import Primitive

_JOINS = frozenset({Primitive.SUM, Primitive.CONCAT})
_UNUSED = "does not reach the output through a layer of the vocabulary"


def finish(builder: TraceBuilder, output: Value, leaves: Sequence[Leaf], name: str) -> ArchGraph:
    """The architecture's graph.

    Raises:
      ValueError: if the output does not depend on the input, or several nodes end in it side by side.
    """
    if not isinstance(output, Data):
        raise ValueError(f"architecture {name!r}: the output does not depend on the input images")
    targets, predecessors = _contract(builder)
    ends = set().union(*(targets[row] for row in output.nodes))
    if len(ends) != 1:
        found = ", ".join(f"{row} ({builder.nodes[row].primitive.label})" for row in sorted(ends))
        raise ValueError(
            f"architecture {name!r}: the output joins nodes {found} by something that is no node; "
            "return one array of logits, or choose it with `output`"
        )
    last = ends.pop()
    live = _reaching(last, predecessors)
    rows = {row: place for place, row in enumerate(sorted(live))}
    classifier = _classifier(builder, last, predecessors)
    specs, kept = _specs(builder, rows, classifier, leaves)
    return ArchGraph.build(
        name,
        [builder.nodes[row].primitive for row in rows],
        [builder.nodes[row].shape for row in rows],
        [(rows[source], rows[row]) for row in rows for source in predecessors[row]],
        specs,
        kept=kept,
    )


def _contract(builder: TraceBuilder) -> tuple[list[frozenset[int]], list[frozenset[int]]]:
    """For each row what stands for it as a predecessor, and its predecessors.

    Nodes marked as contracted go, and joins that are left with one predecessor.
    """
    targets: list[frozenset[int]] = []
    predecessors: list[frozenset[int]] = []
    for row, node in enumerate(builder.nodes):
        found = frozenset(itertools.chain.from_iterable(targets[source] for source in node.predecessors))
        gone = node.contracted or (node.primitive in _JOINS and len(found) == 1)
        targets.append(found if gone else frozenset({row}))
        predecessors.append(found)
    return targets, predecessors


def _reaching(last: int, predecessors: Sequence[frozenset[int]]) -> set[int]:
    """Rows that lead to the last one."""
    live, waiting = {last}, [last]
    while waiting:
        for row in predecessors[waiting.pop()] - live:
            live.add(row)
            waiting.append(row)
    return live


def _classifier(builder: TraceBuilder, last: int, predecessors: Sequence[frozenset[int]]) -> set[int]:
    """Rows of the classifier: the last node if it is a kernel, or a bias and its kernel.

    A kernel followed by a mean over space (SqueezeNet) is an ordinary convolution to the reference, too.
    """
    rows = {last}
    if builder.nodes[last].primitive is Primitive.BIAS:
        rows |= predecessors[last]
    kernels = {row for row in rows if builder.nodes[row].primitive is Primitive.CONV}
    return rows if len(kernels) == 1 and builder.nodes[last].primitive in (Primitive.CONV, Primitive.BIAS) else set()


_OF_CLASSIFIER = {Role.KERNEL: Role.CLASSIFIER_KERNEL, Role.BIAS: Role.CLASSIFIER_BIAS}


def _specs(
    builder: TraceBuilder, rows: dict[int, int], classifier: set[int], leaves: Sequence[Leaf]
) -> tuple[list[ParamSpec], list[KeptParam]]:
    """A spec for each leaf (or layer of a stacked leaf) that a node of the graph uses, and the leaves without one."""
    used: dict[Leaf, dict[tuple[int, ...], Candidate]] = {}
    for candidate in builder.candidates:
        if candidate.node in rows:
            used.setdefault(candidate.leaf, {}).setdefault(candidate.index, candidate)
    specs: list[ParamSpec] = []
    kept: list[KeptParam] = []
    for leaf in leaves:
        layers = used.get(leaf, {})
        depth = len(next(iter(layers), ()))
        everything = set(itertools.product(*(range(n) for n in leaf.shape[:depth])))
        altered = leaf in builder.altered
        if altered or not layers or set(layers) != everything:
            partly = layers and not altered
            reason = "only some of its layers are used" if partly else builder.reasons.get(leaf.path, _UNUSED)
            kept.append(KeptParam(leaf.path, leaf.shape, reason))
            continue
        for index, layer in sorted(layers.items()):
            role = _OF_CLASSIFIER.get(layer.role, layer.role) if layer.node in classifier else layer.role
            specs.append(ParamSpec(leaf.path, layer.shape, layer.axes, role, rows[layer.node], index))
    return specs, kept
