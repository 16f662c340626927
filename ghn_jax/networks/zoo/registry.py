"""The models of the zoo by name."""

from collections.abc import Callable

import flax.linen as nn

from ghn_jax.networks.zoo import (
    convnext,
    densenet,
    googlenet,
    mnasnet,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    shufflenet,
    squeezenet,
    vgg,
    vit,
)

_MODELS: dict[str, Callable[..., nn.Module]] = {
    **resnet.MODELS,
    **vgg.MODELS,
    **densenet.MODELS,
    **mobilenet_v2.MODELS,
    **mobilenet_v3.MODELS,
    **squeezenet.MODELS,
    **shufflenet.MODELS,
    **mnasnet.MODELS,
    **googlenet.MODELS,
    **convnext.MODELS,
    **vit.MODELS,
}


def names() -> tuple[str, ...]:
    """Names that `create` knows, as torchvision spells them."""
    return tuple(_MODELS)


def create(name: str, num_classes: int = 1000, small_images: bool = False) -> nn.Module:
    """A model of the zoo: images (B, H, W, 3) -> logits (B, K), parameters by torchvision's names.

    Call it as ``model.apply(variables, images, train, dropout)``: `train` chooses batch statistics (and makes
    ``batch_stats`` mutable), `dropout` needs an rng of that name; both are off by default.

    Args:
      name: one of `names`.
      num_classes: K.
      small_images: the form for 32 x 32 images instead of 224 x 224.

    Raises:
      ValueError: for an unknown name or fewer than one class.
    """
    if name not in _MODELS:
        raise ValueError(f"zoo: unknown model {name!r}; known models: {', '.join(_MODELS)}")
    if num_classes < 1:
        raise ValueError(f"zoo: model {name!r} needs at least one class, got num_classes={num_classes}")
    return _MODELS[name](num_classes=num_classes, small_images=small_images)
