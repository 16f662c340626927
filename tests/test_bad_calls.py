"""Bad calls of the library: each raises a ValueError that names what is wrong, before anything is computed."""

# Arguments of wrong types are what this file is about.
# pyright: reportArgumentType=false

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from small_graphs import TINY, mixed_graph
from small_models import Small
from tiny_networks import images_and_labels, tiny_batch

import ghn_jax
from ghn_jax.deepnets import Genotype, NetworkArgs, network_graph, sample_architecture
from ghn_jax.deepnets.sources import ArchitectureConfig
from ghn_jax.evaluation import EvaluationConfig
from ghn_jax.fields import Range, check_number, refuse_idle
from ghn_jax.graphs import ArchGraph, ParamSpec, Primitive, Role
from ghn_jax.graphs.batching import batch_graphs
from ghn_jax.graphs.tracing import trace
from ghn_jax.hypernet import GHN, PretrainedGHN, embed, init_ghn, predict
from ghn_jax.images import ImageSet, ImageSplit, few_shot, load_images, train_batches
from ghn_jax.initialising import init_like
from ghn_jax.metatraining.config import ImageConfig, RunConfig, TrainConfig
from ghn_jax.metatraining.optimisation import OptimiserConfig
from ghn_jax.networks import Runner, TargetNetwork, network_plan, zoo

Call = Callable[[], Any]
GRAPH = mixed_graph()
ANY: Any = object()
"""Of no type that anything takes."""


@functools.cache
def ghn() -> PretrainedGHN:
    module = GHN(TINY)
    return PretrainedGHN(module, init_ghn(module, jax.random.key(0)))


def architectures() -> dict[str, tuple[Call, str]]:
    """Graphs made by hand."""
    conv, bias = int(Primitive.CONV), int(Primitive.BIAS)
    nodes = {"node_types": [9, conv, bias], "node_shapes": [[0] * 4, [2, 3, 1, 1], [2, 1, 1, 1]]}
    kernel = ParamSpec(("head", "kernel"), (3, 2), "IO", Role.CLASSIFIER_KERNEL, 1)
    offset = ParamSpec(("head", "bias"), (2,), "O", Role.CLASSIFIER_BIAS, 2)
    good: dict[str, Any] = {"name": "toy", **nodes, "edges": [(0, 1), (1, 2)], "params": [kernel, offset]}
    ArchGraph.build(**good)

    def build(**changes: Any) -> Call:
        return lambda: ArchGraph.build(**{**good, **changes})

    def second(*shape: float) -> list[Any]:
        return [[0] * 4, list(shape), [2, 1, 1, 1]]

    def spec(**changes: Any) -> Call:
        return build(params=[dataclasses.replace(kernel, **changes), offset])

    array = np.array
    types, shapes, edges = array([9, conv, bias], np.int8), array(nodes["node_shapes"], np.int32), array(good["edges"])
    return {
        "negative shape": (build(node_shapes=second(-2, 3, 1, 1)), r"node 1 has the negative shape"),
        "fractional shape": (
            build(node_shapes=second(2.5, 3, 1, 1)),
            "node_shapes must be",
        ),
        "ragged shapes": (build(node_shapes=second(2, 3)), "node_shapes must be"),
        "shapes of three": (build(node_shapes=[[0] * 3] * 3), "node_shapes must be"),
        "shapes missing": (build(node_shapes=[[0] * 4] * 2), r"node_shapes must be \(3, 4\)"),
        "huge shape": (build(node_shapes=second(2**40, 3, 1, 1)), "node_shapes must be at most"),
        "fractional type": (build(node_types=[9, 4.2, 10]), "node_types must be an array of whole numbers"),
        "text type": (build(node_types=["input", "conv", "bias"]), "node_types must be an array of whole numbers"),
        "unknown type": (build(node_types=[9, 44, 10]), "node 1 has the unknown type 44"),
        "type -1": (build(node_types=[9, -1, 10]), "node 1 has the unknown type -1"),
        "no nodes": (build(node_types=[]), "node_types must be|has no nodes"),
        "two inputs": (build(node_types=[9, 9, 10], params=[offset]), "the first node must be its only input"),
        "fractional edge": (build(edges=[(0, 1.5)]), "edges must be"),
        "edge of three": (build(edges=[(0, 1, 2)]), "edges must be"),
        "edge nowhere": (build(edges=[(0, 1), (1, 7)]), "leaves the range of its 3 nodes"),
        "edge from -1": (build(edges=[(-1, 1), (1, 2)]), "leaves the range of its 3 nodes"),
        "huge edge": (build(edges=[(0, 1), (1, 2**40)]), "edges must be at most"),
        "loop": (build(edges=[(0, 1), (1, 1), (1, 2)]), "its own successor"),
        "cycle": (build(edges=[(0, 1), (1, 2), (2, 1)]), "cycle"),
        "dead end": (build(edges=[(0, 1), (0, 2)]), "does not reach the last node"),
        "without input": (build(edges=[(1, 2)]), "does not reach the last node|has no path from the input"),
        "duplicate path": (build(params=[kernel, kernel, offset]), "'head/kernel' is listed twice"),
        "duplicate index": (
            build(params=[dataclasses.replace(kernel, index=(0,))] * 2 + [offset]),
            r"'head/kernel\[0\]' is listed twice",
        ),
        "stacked and not": (
            build(params=[kernel, dataclasses.replace(kernel, index=(0,)), offset]),
            "'head/kernel' is stacked in",
        ),
        "leaf in a leaf": (
            build(params=[kernel, dataclasses.replace(offset, path=("head", "kernel", "bias"))]),
            "'head/kernel' is a parameter and holds the parameter",
        ),
        "negative tensor": (spec(shape=(-3, 2)), "every axis must be at least 1"),
        "empty tensor": (spec(shape=(0, 2)), "every axis must be at least 1"),
        "axes too many": (spec(axes="HWIO"), "axes 'HWIO' do not describe shape"),
        "unknown axes": (spec(axes="XY"), "axes 'XY' do not describe shape"),
        "node nowhere": (spec(node=9), "points to node 9, which is out of range"),
        "node -1": (spec(node=-1), "points to node -1, which is out of range"),
        "role and node": (spec(role=Role.SCALE), "a scale cannot be decoded from a conv node"),
        "lists": (
            lambda: ArchGraph("toy", [9, 4], [[0] * 4] * 2, [[0, 1]], ()),
            "must be integer arrays",
        ),
        "float arrays": (lambda: ArchGraph("toy", types, shapes * 1.0, edges, ()), "must be integer arrays"),
        "unsorted": (lambda: ArchGraph("toy", types, shapes, edges[:, ::-1], ()), "not in topological order"),
        "cutoff 0": (lambda: GRAPH.distances(0), "cutoff must be a whole number from 1 to 250, got 0"),
        "cutoff 251": (lambda: GRAPH.distances(251), "cutoff must be"),
        "cutoff 2.5": (lambda: GRAPH.distances(2.5), "cutoff must be"),
        "cutoff True": (lambda: GRAPH.distances(True), "cutoff must be"),
        "no graphs": (lambda: batch_graphs([]), "at least one graph"),
        "no buckets": (lambda: batch_graphs([GRAPH], buckets=()), "at least one declared bucket"),
        "small buckets": (lambda: batch_graphs([GRAPH], buckets=(4,)), "'mixed' .* above the largest bucket"),
        "batch cutoff": (lambda: batch_graphs([GRAPH], cutoff=-1), "cutoff must be"),
    }


def hypernetworks() -> dict[str, tuple[Call, str]]:
    """`predict`, `embed` and `init_like`."""
    x, key = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32), jax.random.key(0)

    def like(model: Any = None, rng: Any = key, x: Any = x, source: Any = None, **options: Any) -> Call:
        return lambda: init_like(model or Small(), rng, x, source or ghn(), **options)

    return {
        "predict int32": (lambda: predict(GRAPH, ghn(), dtype="int32"), "must be a floating type .*got int32"),
        "predict bool": (lambda: predict(GRAPH, ghn(), dtype=bool), "must be a floating type .*got bool"),
        "predict complex": (lambda: predict(GRAPH, ghn(), dtype="complex64"), "must be a floating type"),
        "predict text": (lambda: predict(GRAPH, ghn(), dtype="nonsense"), "must be a floating type .*'nonsense'"),
        "predict float64": (lambda: predict(GRAPH, ghn(), dtype="float64"), "float64, but JAX has it disabled"),
        "predict None": (lambda: predict(None, ghn()), "reads ArchGraph .*NoneType"),
        "predict list": (lambda: predict([GRAPH], ghn()), "reads ArchGraph .*list"),
        "predict model": (lambda: predict(Small(), ghn()), "reads ArchGraph .*Small"),
        "predict ghn 3": (lambda: predict(GRAPH, 3), "ghn must be a loaded hypernetwork.*int"),
        "predict module": (lambda: predict(GRAPH, ghn().ghn), "ghn must be .*GHN"),
        "predict no file": (lambda: predict(GRAPH, pathlib.Path("there/is/none")), "there/is/none"),
        "predict no name": (lambda: predict(GRAPH, "none"), "'none'|none"),
        "predict classes": (lambda: predict(mixed_graph(classes=5), ghn()), "'mixed'.*classes"),
        "predict kept": (lambda: predict(trace(Small(11), (8, 8, 3)), ghn()), "not predicted: 'gamma'"),
        "embed -1": (lambda: embed([GRAPH], ghn(), at_once=-1), "at_once must be .*got -1"),
        "embed 0": (lambda: embed([GRAPH], ghn(), at_once=0), "at_once must be .*got 0"),
        "embed 1.5": (lambda: embed([GRAPH], ghn(), at_once=1.5), "at_once must be"),
        "embed one": (lambda: embed(GRAPH, ghn()), r"a sequence of architectures.*give \[graph\]"),
        "embed None": (lambda: embed([GRAPH, None], ghn()), "reads ArchGraph"),
        "embed ghn": (lambda: embed([GRAPH], ANY), "ghn must be .*object"),
        "init_like list": (like(x=[1, 2]), "x must be an array of images .*list"),
        "init_like shape": (like(x=(2, 8, 8, 3)), "x must be an array of images .*tuple"),
        "init_like seed": (like(rng=0), "rng must be one key"),
        "init_like keys": (like(rng=jax.random.split(key)), "rng must be one key"),
        "init_like layout": (like(x=jax.ShapeDtypeStruct((2, 4, 4, 64), jnp.float32)), "layout='CHW' or layout='HWC'"),
        "init_like class": (like(model=Small), "cannot trace the class Small"),
        "init_like number": (like(model=7), "cannot trace a int"),
        "init_like ghn": (like(source=3.5), "ghn must be .*float"),
        "load_ghn": (lambda: ghn_jax.load_ghn("ppuda:ghn9"), "ghn9"),
    }


def tracer() -> dict[str, tuple[Call, str]]:
    def shaped(shape: Any, **options: Any) -> Call:
        return lambda: trace(Small(), shape, **options)

    def plain(params: Any, images: Any) -> Any:
        return images.reshape(images.shape[0], -1) @ params

    return {
        "trace -1": (shaped((-1, 8, 3)), r"input_shape \(-1, 8, 3\): every axis must be a positive integer"),
        "trace 0": (shaped((8, 0, 3)), "every axis must be a positive integer"),
        "trace 8.5": (shaped((8.5, 8, 3)), "every axis must be a positive integer"),
        "trace text": (shaped("883"), "every axis must be a positive integer"),
        "trace None": (shaped(None), "every axis must be a positive integer"),
        "trace int": (shaped(8), "every axis must be a positive integer"),
        "trace True": (shaped((True, 8, 3)), "every axis must be a positive integer"),
        "trace empty": (shaped(()), "every axis must be a positive integer"),
        "trace layout": (shaped((8, 8, 3), layout="HHC"), "layout 'HHC'"),
        "trace letters": (shaped((8, 8, 3), layout="H2C"), "layout 'H2C'"),
        "trace no C": (shaped((8, 8, 3), layout="HWX"), "layout 'HWX'"),
        "trace axes": (shaped((8, 8, 3), layout="NCHWD"), "layout 'NCHWD' does not fit"),
        "trace strict": (shaped((8, 8, 3), strict=True), "cannot be predicted: gamma"),
        "trace class": (lambda: trace(nn.Dense, (8, 8, 3)), "cannot trace the class Dense"),
        "trace object": (lambda: trace(ANY, (8, 8, 3)), "cannot trace a object"),
        "trace alone": (lambda: trace(plain, (8, 8, 3)), "can only be traced with `params`"),
        "trace floats": (
            lambda: trace(plain, (8, 8, 3), params={"w": 1.0}),
            "'w' must be an array, got a float",
        ),
        "trace texts": (
            lambda: trace(plain, (8, 8, 3), params={"w": "x"}),
            "'w' must be an array, got a str",
        ),
    }


def networks() -> dict[str, tuple[Call, str]]:
    args = tiny_batch(1).args[0]
    images, labels = images_and_labels(4)
    params: Any = flatten_dict(jax.eval_shape(TargetNetwork(args).init, jax.random.key(0), images)["params"])
    params = {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in params.items()}
    first, plan, runner = next(iter(params)), network_plan(args), Runner()

    def loss(labels: Any = labels, images: Any = images, params: Any = params, **options: Any) -> Call:
        return lambda: runner.loss_and_grads(plan, params, images, labels, rng=jax.random.key(0), **options)

    def forward(images: Any = images, params: Any = params, **options: Any) -> Call:
        return lambda: runner.forward(plan, params, images, **options)

    def changed(value: Any) -> Any:
        return {**params, first: value}

    name = "/".join(first)
    return {
        "label K": (loss(labels.at[1].set(10)), "labels must be from 0 to 9, for 10 classes, got 10"),
        "label -1": (loss(labels.at[0].set(-1)), "labels must be from 0 to 9.*got -1"),
        "labels float": (loss(labels * 1.0), "labels must be 4 whole numbers.*float32"),
        "labels one-hot": (loss(jax.nn.one_hot(labels, 10)), "labels must be 4 whole numbers"),
        "labels short": (loss(labels[:3]), "labels must be 4 whole numbers"),
        "labels bool": (loss(labels > 3), "labels must be 4 whole numbers.*bool"),
        "smoothing 1": (loss(label_smoothing=1.0), "label_smoothing must be .*got 1.0"),
        "smoothing NaN": (loss(label_smoothing=math.nan), "label_smoothing must be .*nan"),
        "smoothing -1": (loss(label_smoothing=-1.0), "label_smoothing must be .*got -1.0"),
        "weight NaN": (loss(auxiliary_weight=math.inf), "auxiliary_weight must be .*inf"),
        "dtype int": (loss(dtype="int32"), "dtype of a target network"),
        "dtype text": (loss(dtype="nonsense"), "dtype of a target network.*nonsense"),
        "dtype float64": (forward(dtype="float64"), "float64, but JAX has it disabled"),
        "images flat": (forward(images[0]), r"images must be \(B, H, W, 3\)"),
        "images none": (forward(images[:0]), r"images must be \(B, H, W, 3\), none of them empty"),
        "images grey": (forward(images[..., :1]), "has shape|channels"),
        "parameter shape": (forward(params=changed(params[first][..., :1])), f"{name} has shape .*another network"),
        "parameter shape loss": (loss(params=changed(params[first][..., :1])), f"{name} has shape .*another network"),
        "parameter bfloat16": (forward(params=changed(params[first].astype("bfloat16"))), f"{name} is bfloat16"),
        "parameter int": (forward(params=changed(params[first].astype("int32"))), f"{name} is int32"),
        "parameter missing": (forward(params={}), "parameters: .* is missing"),
        "warm shape": (lambda: runner.warm([plan], (8, 8, 3)), r"images must be \(B, H, W, 3\)"),
        "warm threads": (lambda: runner.warm([plan], images.shape, threads=0), "threads must be"),
        "drop_path 1": (lambda: network_plan(args, drop_path=1.0), "drop_path must be .*got 1.0"),
        "drop_path NaN": (lambda: network_plan(args, drop_path=math.nan), "drop_path must be"),
        "momentum 2": (lambda: network_plan(args, 2.0), "momentum must be"),
        "target momentum": (
            lambda: jax.eval_shape(TargetNetwork(args, momentum=-1.0).init, jax.random.key(0), images),
            "momentum must be",
        ),
        "zoo name": (lambda: zoo.create("resnet19"), "unknown model 'resnet19'"),
        "zoo classes": (lambda: zoo.create("resnet18", 0), "num_classes=0"),
    }


def data_and_configurations() -> dict[str, tuple[Call, str]]:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    cells = Genotype((("conv_3x3", 0), ("none", 1)), (2,), (("max_pool_3x3", 0), ("none", 1)), (2,))
    msa = Genotype((("msa", 0), ("none", 1)), (2,), (("msa", 0), ("none", 1)), (2,))
    return {
        "sample split": (lambda: sample_architecture("tset", 0), "tset"),
        "sample -1": (lambda: sample_architecture("test", -1), "index -1"),
        "sample seed": (lambda: sample_architecture("test", 0, -1), "seed -1"),
        "sample predefined": (lambda: sample_architecture("predefined", 2), "asked for number 2"),
        "C 0": (lambda: NetworkArgs(cells, 3, C=0), "C must be at least 1"),
        "size 0": (lambda: NetworkArgs(cells, 3, image_size=0), "image_size must be at least 1"),
        "norm": (lambda: NetworkArgs(cells, 3, norm="layer"), "norm must be"),
        "heads": (lambda: network_graph(NetworkArgs(msa, 3, C=12), "odd"), "'odd'.*multiple of 8 heads"),
        "images name": (lambda: load_images("there_is_no_such_set"), "there_is_no_such_set"),
        "images size": (lambda: load_images("digits", -1), "image_size must be at least 1, got -1"),
        "images folder": (lambda: load_images("folder:there/is/none"), "there/is/none"),
        "label -1": (
            lambda: ImageSplit(pixels, np.array([0, -1])),
            "labels must be whole numbers from 0.* least -1",
        ),
        "label 0.5": (lambda: ImageSplit(pixels, np.array([0, 0.5])), "labels must be whole numbers.*float64"),
        "label missing": (lambda: ImageSplit(pixels, np.array([0])), "2 images need as many labels"),
        "pixels float": (lambda: ImageSplit(pixels / 255, np.array([0, 1])), "images must be uint8"),
        "batch 0": (lambda: train_batches(digits(), 0, 0), "batch_size must be"),
        "batch many": (lambda: train_batches(digits(), 10_000, 0), "batch_size must be"),
        "few 0": (lambda: few_shot(digits().train, 0), "cannot take 0 of each class"),
        "few choice": (lambda: few_shot(digits().train, 1, choice="last"), "'last'"),
        "rate NaN": (lambda: OptimiserConfig(learning_rate=math.nan), "learning_rate must be .*nan"),
        "rate text": (lambda: OptimiserConfig(learning_rate="1"), "learning_rate must be"),
        "clip -1": (lambda: OptimiserConfig(clip=-1.0), "clip must be a finite number above 0, got -1.0"),
        "decay 0": (lambda: OptimiserConfig(decay=0.0), "decay must be"),
        "l2 inf": (lambda: OptimiserConfig(l2=math.inf), "l2 must be"),
        "epochs 1.5": (lambda: OptimiserConfig(epochs=1.5), "epochs must be"),
        "epochs True": (lambda: OptimiserConfig(epochs=True), "epochs must be"),
        "milestone": (lambda: OptimiserConfig(milestones=(3, -1)), "milestones must be .*-1"),
        "schedule": (lambda: OptimiserConfig(schedule="flat"), "schedule must be one of"),
        "run seed": (lambda: RunConfig(seed=10**20), "seed must be"),
        "run dtype": (lambda: RunConfig(dtype="int8"), "dtype must be one of float32, bfloat16"),
        "run flag": (lambda: RunConfig(distributed="no"), "distributed must be one of"),
        "coordinator": (lambda: RunConfig(coordinator="a:1"), "coordinator = 'a:1' has no effect without distributed"),
        "preset": (lambda: TrainConfig("ghn4"), "preset must be one of"),
        "dataset": (lambda: ImageConfig(dataset=""), "dataset must name"),
        "split": (lambda: ArchitectureConfig(split="tset"), "unknown split 'tset'"),
        "file": (lambda: ArchitectureConfig(split="demo", architecture_file=pathlib.Path("a")), "architecture_file"),
        "evaluation": (lambda: EvaluationConfig(architectures=0), "architectures must be"),
        "evaluation bn": (lambda: EvaluationConfig(bn="none"), "bn must be one of"),
        "evaluate ghn": (lambda: ghn_jax.evaluate(ANY, digits()), "ghn must be"),
    }


@functools.cache
def digits() -> ImageSet:
    images = load_images("digits", 8)
    assert isinstance(images, ImageSet)
    return images


KINDS = (architectures, hypernetworks, tracer, networks, data_and_configurations)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_bad_calls_are_refused_by_name(kind: Callable[[], dict[str, tuple[Call, str]]]) -> None:
    for name, (call, message) in kind().items():
        try:
            with pytest.raises(ValueError, match=f"(?s){message}"):
                call()
        except BaseException as error:
            error.add_note(f"bad call {name!r}")
            raise


def test_there_are_many() -> None:
    assert sum(len(kind()) for kind in KINDS) >= 140


def test_a_function_whose_parameters_are_one_array() -> None:
    """Its only leaf has no path: predicted parameters are the array itself."""

    def linear(params: jax.Array, images: jax.Array) -> jax.Array:
        return images.reshape(images.shape[0], -1) @ params

    weights = jnp.ones((192, 11))
    graph = trace(linear, (8, 8, 3), params=weights)
    assert [spec.path for spec in graph.params] == [()]
    predicted = predict(graph, ghn())["params"]
    assert predicted.shape == weights.shape
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    made = init_like(linear, jax.random.key(0), x, ghn(), params=weights)
    np.testing.assert_array_equal(made, predicted)


@pytest.mark.parametrize(
    ("value", "allowed", "holds"),
    [
        (1, Range(1), True),
        (np.int32(3), Range(1, 3), True),
        (3.0, Range(1), False),
        (True, Range(0), False),
        (0.0, Range(0, whole=False, open=True), False),
        (1, Range(0, 1, whole=False), True),
        (1, Range(0, 1, whole=False, below=True), False),
        (math.nan, Range(-math.inf, whole=False), False),
        (np.float32(0.5), Range(0, 1, whole=False), True),
        ("1", Range(0, whole=False), False),
        (10**400, Range(0), False),
        (10**400, Range(0, 5, whole=False), False),
        (None, Range(0), False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_ranges(value: Any, allowed: Range, holds: bool) -> None:
    assert allowed.holds(value) == holds
    if not holds:
        with pytest.raises(ValueError, match=r"speed must be a (whole|finite) number"):
            check_number("speed", value, allowed)


def test_a_field_without_effect_may_keep_its_default() -> None:
    refuse_idle(RunConfig(), ("seed", "coordinator"), "here")
    with pytest.raises(ValueError, match="seed = 3 has no effect here: leave it out"):
        refuse_idle(RunConfig(seed=3), ("coordinator", "seed"), "here")
