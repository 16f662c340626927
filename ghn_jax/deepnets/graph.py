"""Architecture graph of a DeepNets-1M network, from its arguments alone (paper, Sec. 2 and A.1)."""

import numpy as np

from ghn_jax.deepnets.builder import LayerGraphBuilder, Shape, Value
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.recipes import Recipe
from ghn_jax.deepnets.walk import live_parts
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.param_spec import ParamSpec
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


def build_network(args: NetworkArgs, name: str) -> "NetworkGraphBuilder":
    """As `network_graph`, before it is made final: the builder knows the cell of every node."""
    build = NetworkGraphBuilder(name, args.norm is not None)
    values = [build.images(args.image_size)]
    for part in live_parts(args, name):
        values.append(build.part(part.name, part.recipe, [values[i] for i in part.inputs], part.kind, part.cell))
    return build


def recipe_graph(recipe: Recipe, image_size: int, name: str) -> ArchGraph:
    """Graph of a whole network that is one recipe on images (B, H, W, 3)."""
    build = NetworkGraphBuilder(name)
    build.part("", recipe, [build.images(image_size)])
    return build.finish()


class NetworkGraphBuilder:
    """Joins the graphs of a network's parts, in the order in which they run, to an `ArchGraph`.

    Attributes:
      name: of the architecture, for errors.
      cells: number of the cell of each node.
    """

    def __init__(self, name: str, has_norm: bool = True) -> None:
        self.name = name
        self.cells = [0]
        self._nodes = LayerGraphBuilder(has_norm, 0)
        self._nodes.types.append(int(Primitive.INPUT))
        self._nodes.shapes.append((0, 0, 0, 0))

    def images(self, size: int) -> Value:
        """The input node: images of a height and width."""
        return Value(0, Shape(3, size, size))

    def part(self, name: str, recipe: Recipe, inputs: list[Value], kind: str = "", cell: int = 0) -> Value:
        """Adds a part behind `inputs`, whose parameters lie under `name`; raises ValueError naming the architecture."""
        try:
            out = self._nodes.layer(name, recipe, *inputs, kind="" if name else kind)
        except ValueError as error:
            raise ValueError(f"architecture {self.name!r}: {error}") from None
        self.cells.extend([cell] * (len(self._nodes.types) - len(self.cells)))
        return out

    def finish(self) -> ArchGraph:
        """The graph of everything added so far."""
        nodes, count = self._nodes, len(self._nodes.types)
        keys = np.array([source * count + target for source, target in nodes.edges], np.int64)
        keys.sort()
        edges = np.stack(np.divmod(keys, count), axis=1).astype(np.int32)
        types, shapes = np.array(nodes.types, np.int8), np.array(nodes.shapes, np.int32)
        return ArchGraph(self.name, types, shapes, edges, tuple([ParamSpec(*tensor) for tensor in nodes.tensors]))
