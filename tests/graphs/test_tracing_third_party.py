"""Models that nobody here wrote, from packages on PyPI: they trace, and only what is outside the vocabulary is kept.

Optional: ``pip install .[third-party]``; packages that are not installed are skipped.
"""

import functools
import importlib
import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ghn_jax.graphs import ArchGraph, Primitive
from ghn_jax.graphs.tracing import trace

IMAGE = (224, 224, 3)
TOKENS = {"cls_token", "reg_tokens"}


def imported(name: str) -> Any:
    """A package, or a skipped test. What it warns of while it is imported or called is not ours."""
    warnings.simplefilter("ignore")
    pytest.importorskip(name.partition(".")[0])
    return importlib.import_module(name)


@pytest.fixture(autouse=True)
def rank_promotion():
    """Models of others broadcast as they like, and warn."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        yield


def jax_resnet(name: str) -> ArchGraph:
    return trace(getattr(imported("jax_resnet"), name)(n_classes=10), IMAGE)


def jax_models(name: str) -> ArchGraph:
    make = imported("jax_models.models.model_registry").model_dict
    importlib.import_module("jax_models.models")
    wanted = {"attach_head": True, "num_classes": 10, "pretrained": False}
    taken = inspect.signature(make[name]).parameters
    return trace(make[name](**{key: value for key, value in wanted.items() if key in taken}), IMAGE)


def equimo(name: str) -> ArchGraph:
    """Equinox modules of single images, channels first."""
    make = getattr(imported("equimo.models"), name)
    eqx = imported("equinox")
    model = eqx.filter_eval_shape(functools.partial(make, num_classes=10), key=jax.random.key(0))
    params, static = eqx.partition(
        model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )

    def forward(params: Any, images: jax.Array) -> jax.Array:
        module = eqx.combine(params, static)
        return jax.vmap(lambda image: module(image, key=jax.random.key(0), inference=True))(images)

    return trace(forward, (3, 224, 224), params=params, name=name)


MODELS: list[Any] = [  # how to trace it, its name, last keys of the leaves outside the vocabulary
    (jax_resnet, "ResNet18", set()),
    (jax_resnet, "ResNeXt50", set()),
    (jax_resnet, "ResNetD18", set()),
    (jax_resnet, "ResNeSt50Fast", set()),
    (jax_models, "mlpmixer-s32", set()),
    (jax_models, "poolformer-s12", set()),
    (jax_models, "patchconvnet-s60", {"gamma_1", "gamma_2", "gamma", "cls_token"}),
    (equimo, "vit_tiny_patch16_224", TOKENS),
    (equimo, "siglip2_vitb16_224", set()),
    (equimo, "vit5_small", {"cls_token", "reg_tokens", "gamma", "freqs"}),
    (equimo, "convnext_t", {"gamma"}),
    (equimo, "mobilenetv3_small", set()),
    (equimo, "attnet_xxs", {"difference_control"}),
    (equimo, "iformer_t", set()),
    (equimo, "reduceformer_backbone_b1", set()),
    # These read jax.numpy constants as Python numbers, so that their initialisers run: a minute each.
    *(
        pytest.param(jax_models, name, kept, marks=pytest.mark.slow)
        for name, kept in (
            ("mpvit-tiny", {f"param_{path}_{layer}" for path in range(1, 4) for layer in range(6)}),  # class tokens
            ("convnext-tiny", {"gamma"}),
            ("swin-tiny-224", {"relative_position_bias_table"}),
            ("pvit-b0", set()),
            ("segformer-b0", set()),
            ("van-tiny", {"layer_scale_1", "layer_scale_2"}),
        )
    ),
]


@pytest.mark.parametrize(("make", "name", "outside"), MODELS)
def test_every_weight_of_the_vocabularys_layers_is_covered(make: Any, name: str, outside: set[str]):
    graph = make(name)
    assert {leaf.path[-1] for leaf in graph.kept} <= outside, [leaf.name for leaf in graph.kept]
    assert graph.kept_share < 0.002
    assert graph.num_classes == 10
    kinds = {Primitive(kind) for kind in graph.node_types.tolist()}
    assert Primitive.CONV in kinds
    assert kinds & {Primitive.BN, Primitive.LN}
