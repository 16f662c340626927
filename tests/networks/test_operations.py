"""One description of each layer: graphs, numbers of weights, Flax layers and names in files agree, for any row."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict
from network_args import small_args

from ghn_jax.deepnets import VIT, NetworkArgs, ends, network_graph, parameter_count, recipes
from ghn_jax.deepnets.builder import Shape, Value, layer_graph, measure
from ghn_jax.deepnets.files.tables import numbers_of_names, op_names
from ghn_jax.deepnets.files.writer import make_entry
from ghn_jax.deepnets.graph import recipe_graph
from ghn_jax.deepnets.operations import OPERATIONS, OPS, UNTRAINABLE_OPS, Operation
from ghn_jax.deepnets.recipes import Builder, Recipe, V
from ghn_jax.deepnets.resnet import ResidualNetwork
from ghn_jax.networks import TargetNetwork, network_plan, zoo
from ghn_jax.networks.recipe_layer import Norm, RecipeLayer
from ghn_jax.networks.zoo.resnet import MODELS, ResNet

ENDS = [
    ends.TransformerStem(16, False),
    ends.SimpleStem(24, 5, False, True),
    ends.DoubleStem(17, 7, False),
    ends.SecondStem(8),
    ends.Classifier(10, (12, 14)),
    ends.Classifier(7, glob_avg=False),
    ends.AuxiliaryHead(10),
    recipes.Stride(),
    recipes.ConvNorm(1, 24),
]


def abstract(network: Any, *shapes: tuple[int, ...]) -> tuple[Any, dict[Any, tuple[int, ...]]]:
    """Output and shapes of parameters by path."""
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    out, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), *inputs)
    leaves: dict[Any, Any] = flatten_dict(variables.get("params", {}))
    return out, {path: leaf.shape for path, leaf in leaves.items()}


def assert_agrees(recipe: Recipe, width: int, size: int, norm: bool) -> None:
    """The graph, the number of weights and the initialised layer are of one layer."""
    shape = Shape(width, size, size)
    layer = layer_graph(recipe, (Value(0, shape),), norm)
    out, leaves = abstract(RecipeLayer(recipe, Norm() if norm else None), (2, size, size, width))
    weights, output = measure(recipe, (shape,), norm)
    assert {path: shape for path, shape, *_ in layer.tensors} == leaves
    assert weights == sum(math.prod(shape) for shape in leaves.values())
    assert out.shape in ((2, output.rows, output.columns, output.width), (2, output.width))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", OPS)
def test_every_op_is_the_same_for_all_who_read_it(op: str, stride: int, norm: bool):
    keeps_width = op in ("max_pool_3x3", "avg_pool_3x3", "msa", "cse") or (op, stride) == ("skip_connect", 1)
    for into, width in ((16, 16), (24, 24), (24, 16), (9, 15)):
        recipe = OPERATIONS[op].at(width, stride)
        if (keeps_width and into != width) or (op == "msa" and width % 8):
            with pytest.raises(ValueError, match=r"cannot turn|multiple of 8"):
                layer_graph(recipe, (Value(0, Shape(into, 8, 8)),), norm)
            continue
        for size in (8, 11, 3, 1):
            assert_agrees(recipe, into, size, norm)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("recipe", ENDS, ids=str)
def test_stems_heads_and_projections_as_well(recipe: Recipe, norm: bool):
    for size in (32, 29):
        assert_agrees(recipe, 3, size, norm)


def test_trainable_is_what_has_weights():
    measured = {op: measure(OPERATIONS[op].at(8, 1), (Shape(8, 4, 4),), True)[0] > 0 for op in OPS}
    assert [op for op, weights in measured.items() if not weights] == list(UNTRAINABLE_OPS)


def test_zeros_are_no_part_of_a_graph():
    with pytest.raises(ValueError, match="architecture 'zeros': outputs zeros, which are no node"):
        recipe_graph(OPERATIONS["none"].at(3, 1), 8, "zeros")


@dataclasses.dataclass(frozen=True, slots=True)
class Toy(Recipe):
    """An op that the release does not have."""

    width: int
    stride: int

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        x = build.conv(inputs[0], "op_1", self.width, (3, 1), strides=(self.stride, self.stride), relu=True)
        gate = build.dense(build.mean(x, squeeze=True), "toy_2", self.width)
        return build.gate(build.norm(x, "op_2"), build.activation(gate, "hard_swish"))


@pytest.fixture
def _toy_row(monkeypatch: pytest.MonkeyPatch):
    """One more row of the table."""
    monkeypatch.setitem(OPERATIONS, "toy", Operation(Toy))
    numbers_of_names.cache_clear()
    yield
    numbers_of_names.cache_clear()


@pytest.mark.usefixtures("_toy_row")
def test_a_new_op_is_one_row():
    args = small_args((("toy", 0), ("toy", 1), ("toy", 2), ("none", 0)), (2, 3), n_cells=3)
    graph = network_graph(args)
    images = (2, 32, 32, 3)
    logits, leaves = abstract(TargetNetwork(args), images)
    assert logits.shape == (2, 10)
    assert {spec.path: spec.shape for spec in graph.params} == leaves
    assert graph.num_params == parameter_count(args) == sum(math.prod(shape) for shape in leaves.values())
    assert sum(call.kind == "toy" for call in network_plan(args).calls) == 9
    entry = make_entry("train", args, "train/0")
    names = {op_names()[number] for number in entry.nodes[:, 2]}
    assert {"_ops.0.toy.2.weight", "_ops.0.toy.2.bias", "_ops.1.op.2.weight"} <= names
    assert type(args.genotype).from_json(args.genotype.to_json()) == args.genotype


def test_an_op_without_a_row_is_refused():
    with pytest.raises(ValueError, match="unknown op 'toy' in normal"):
        small_args((("toy", 0), ("none", 1)))


MIXED = small_args(
    (("skip_connect", 0), ("conv_7x1_1x7", 1), ("sep_conv_3x3", 0), ("max_pool_3x3", 1), ("cse", 2), ("none", 0)),
    (2, 3, 4),
    n_cells=4,
    glob_avg=False,
)
PLAIN = small_args((("conv_3x3", 0), ("conv_1x1", 1)), preproc=False, C_mult=1, n_cells=4, glob_avg=False)


FORMS = {
    "mixed": MIXED,
    "pooled stem": MIXED.replace(stem_pool=True),
    "plain": PLAIN.replace(stem_type=1),
    "transformer": VIT.replace(n_cells=2, C=8),
}
SIZES = [
    *((MIXED.replace(stem_type=1), size) for size in range(8, 34)),
    *((args, size) for args in FORMS.values() for size in (8, 9, 15, 28, 33)),
]


@pytest.mark.parametrize(("args", "size"), SIZES, ids=lambda value: value if isinstance(value, int) else "")
def test_graphs_and_networks_take_the_same_image_sizes(args: NetworkArgs, size: int):
    args = args.replace(image_size=size)
    graph = network_graph(args)
    _, leaves = abstract(TargetNetwork(args), (1, size, size, 3))
    assert {spec.path: spec.shape for spec in graph.params} == leaves
    assert parameter_count(args) == graph.num_params


@pytest.mark.parametrize("small", [True, False], ids=["small", "large"])
@pytest.mark.parametrize("name", MODELS)
def test_residual_networks_of_the_zoo_are_their_graphs(name: str, small: bool):
    model = zoo.create(name, 10, small_images=small)
    assert isinstance(model, ResNet)
    recipe = ResidualNetwork(model.stages, 10, small, model.bottleneck, model.groups, model.group_width)
    graph = recipe_graph(recipe, 64, name)
    out, leaves = abstract(model, (1, 64, 64, 3))
    assert out.shape == (1, 10)
    assert {spec.path: spec.shape for spec in graph.params} == leaves
