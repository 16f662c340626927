"""First and last layers of DeepNets-1M networks as recipes: stems, classifier, auxiliary head."""

import dataclasses

from ghn_jax.deepnets.recipes import Builder, Recipe, V


@dataclasses.dataclass(frozen=True, slots=True)
class TransformerStem(Recipe):
    """Tokens from patches: convolution of kernel = stride = 16 (small images: 3 with padding 1), position table."""

    width: int
    large_image: bool

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Images (B, H, W, 3) to one pixel a patch."""
        size, padding = (16, 0) if self.large_image else (3, 1)
        x = build.conv(inputs[0], "stem0", self.width, (size, size), strides=(size, size), padding=padding)
        return build.position_table(x, "pos_enc")


@dataclasses.dataclass(frozen=True, slots=True)
class SimpleStem(Recipe):
    """Stem of type 0: one convolution (stride 4 for large images), BN, optionally max-pool of stride 2."""

    width: int
    kernel: int
    large_image: bool
    pool: bool

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Both inputs of the first cell."""
        stride = 4 if self.large_image else 1
        x = build.conv(inputs[0], "stem_0", self.width, (self.kernel, self.kernel), strides=(stride, stride))
        x = build.norm(x, "stem_1")
        return build.pool(x, "max", 2) if self.pool else x


@dataclasses.dataclass(frozen=True, slots=True)
class DoubleStem(Recipe):
    """First part of the stem of type 1: conv-BN-ReLU-conv-BN, C / 2 then C wide, stride 2 each for large images."""

    width: int
    kernel: int
    large_image: bool

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Input s0 of the first cell."""
        strides = (2, 2) if self.large_image else (1, 1)
        x = build.conv(inputs[0], "stem0_0", self.width // 2, (self.kernel, self.kernel), strides=strides)
        x = build.norm(x, "stem0_1")
        x = build.conv(x, "stem0_3", self.width, (3, 3), strides=strides, relu=True)
        return build.norm(x, "stem0_4")


@dataclasses.dataclass(frozen=True, slots=True)
class SecondStem(Recipe):
    """Second part of the stem of type 1: ReLU-conv 3-BN of stride 2."""

    width: int

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Input s1 of the first cell from s0."""
        x = build.conv(inputs[0], "stem1_1", self.width, (3, 3), strides=(2, 2), relu=True)
        return build.norm(x, "stem1_2")


@dataclasses.dataclass(frozen=True, slots=True)
class Classifier(Recipe):
    """Global mean or flattening, then linear layers with ReLU and dropout between them."""

    num_classes: int
    hidden: tuple[int, ...] = ()
    glob_avg: bool = True
    dropout: float = 0.5

    @property
    def random(self) -> bool:
        """Whether training needs a key."""
        return bool(self.hidden) and self.dropout > 0

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Logits (B, K)."""
        x = build.mean(inputs[0]) if self.glob_avg else build.flatten(inputs[0])
        for index, width in enumerate(self.hidden):
            x = build.activation(build.dense(x, f"classifier_{3 * index}", width), "relu")
            x = build.dropout(x, self.dropout)
        return build.dense(x, f"classifier_{3 * len(self.hidden)}", self.num_classes, classifier=True)


@dataclasses.dataclass(frozen=True, slots=True)
class AuxiliaryHead(Recipe):
    """Auxiliary classifier of ordinary training, after two thirds of the cells (DARTS, Liu et al. 2019)."""

    num_classes: int

    def __call__(self, build: Builder[V], *inputs: V) -> V:
        """Logits (B, K) of features of at least 8 x 8 pixels."""
        x = build.pool(build.activation(inputs[0], "relu"), "avg", 3, window=5, padding=0)
        x = build.activation(build.norm(build.conv(x, "features_2", 128), "features_3"), "relu")
        x = build.conv(x, "features_5", 768, (2, 2), padding=0)
        x = build.activation(build.norm(x, "features_6"), "relu")
        return build.dense(build.flatten(x), "classifier", self.num_classes, classifier=True)
