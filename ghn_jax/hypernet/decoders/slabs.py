"""What the decoders of GHN-1, GHN-2 and the MLP baseline share: groups of tensors, vectors, classifier, fitting.

Kernels are cut from slabs (kh, kw, in, out), the layout of Flax kernels, of which only the requested corner is
computed (paper, Eq. 5 and section 3.3).
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import flax.linen as nn
import jax

from ghn_jax.graphs.param_spec import VECTOR_ROLES, ParamSpec, Role
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, linear, spread
from ghn_jax.hypernet.decoders.fitting import SlabShape, fit_kernel, fit_vector, slab_shape
from ghn_jax.hypernet.dense import MLP, dense

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig


class SlabKey(NamedTuple):
    """A group: what is decoded, and the slab's shape (empty for vectors, which have one size)."""

    what: str
    shape: tuple[int, ...] = ()


KERNELS, CLASSIFIERS = "kernels", "classifiers"
SCALES, BIASES, CLASSIFIER_BIASES = SlabKey("scales"), SlabKey("biases"), SlabKey("classifier biases")


class Slabs(Protocol):
    """A Flax module from states to slabs: what `SlabDecoder` leaves open."""

    def __call__(self, states: jax.Array, shape: SlabShape) -> jax.Array:
        """(B, D) -> (B, kh, kw, in, out), at most `max_shape` of each."""
        ...

    def classifier(self, states: jax.Array, in_size: int) -> jax.Array:
        """(B, D) -> (B, 1, 1, in, K)."""
        ...


def _corner(config: "GHNConfig", spec: ParamSpec, shape: SlabShape) -> SlabShape:
    """Of a slab that is as large as any, the corner that a tensor of few channels is cut from.

    Most kernels have half or three quarters of the largest size, so that these two corners, of in and out channels
    alike, halve the products of training networks. Others would save 2 % more, and each is a program.
    """
    out_size, in_size = spec.canonical_shape[:2]
    rows, columns = config.max_shape[:2]
    share = max(out_size / rows, in_size / columns)
    quarters = next((quarters for quarters in (2, 3) if share <= quarters / 4), 4)
    height, width, ins, outs = shape
    return height, width, min(ins, -(-columns * quarters // 4)), min(outs, -(-rows * quarters // 4))


class SlabDecoder(nn.Module):
    """Decoder of kernels by slabs and of vectors by an MLP.

    Attributes:
      config: of the hypernetwork.
      decoder: a `Slabs` module.
    """

    config: "GHNConfig"
    decoder: Any

    def setup(self) -> None:
        """Creates the layers."""
        self.decoder_1d = VectorDecoder(self.config)

    @nn.nowrap
    def key(self, spec: ParamSpec) -> SlabKey:
        """Group of a tensor.

        Raises:
          ValueError: for a classifier of another number of classes, or larger than 1 x 1.
        """
        if spec.role in (Role.CLASSIFIER_KERNEL, Role.CLASSIFIER_BIAS):
            self._check_classifier(spec)
        if spec.role in VECTOR_ROLES:
            return vector_key(spec)
        shape = slab_shape(self.config, spec)
        if spec.role is Role.CLASSIFIER_KERNEL:
            return SlabKey(CLASSIFIERS, (1, 1, shape[2], self.config.num_classes))
        return SlabKey(KERNELS, _corner(self.config, spec, shape))

    @nn.nowrap
    def _check_classifier(self, spec: ParamSpec) -> None:
        classes, _, *kernel = spec.canonical_shape
        if classes != self.config.num_classes or kernel != [1, 1]:
            raise ValueError(
                f"the classifier {spec.name!r} has shape {spec.shape}, but this GHN predicts 1 x 1 classifiers of "
                f"{self.config.num_classes} classes; leave the classifier out and initialise it yourself"
            )

    def decode(self, rows: jax.Array, key: SlabKey) -> jax.Array:
        """(B, D) -> slabs (B, kh, kw, in, out) or vectors (B, n)."""
        return decode_group(self.decoder, self.decoder_1d, rows, key)

    @nn.nowrap
    def fit(self, row: jax.Array, spec: ParamSpec) -> jax.Array:
        """Cut, tiled, normalised and laid out."""
        return (fit_vector if spec.role in VECTOR_ROLES else fit_kernel)(self.config, row, spec)


class VectorDecoder(nn.Module):
    """MLP to (2, n): row 0 the weight of a norm layer, row 1 any bias; and the classifier's bias.

    Attributes:
      config: of the hypernetwork.
      size: n; None for max(O, I).
      small: whether the MLP's last layer starts small (see `dense`).
    """

    config: "GHNConfig"
    size: int | None = None
    small: bool = False

    def setup(self) -> None:
        """Creates the layers."""
        hid, size = self.config.hid, self.size or max(self.config.max_shape[:2])
        self.mlp = MLP(hid, 2 * hid, (2, size), self.small)
        self.bias_class = dense(size, self.config.num_classes)

    def __call__(self, states: jax.Array, row: int) -> jax.Array:
        """(B, D) -> (B, n), norm weights (row 0) or biases (row 1)."""
        return self.mlp(states, row)

    def classifier(self, states: jax.Array) -> jax.Array:
        """(B, D) -> (B, K): the biases, ReLU, a linear map."""
        return self.bias_class(nn.relu(self(states, 1)))

    def decode(self, states: jax.Array, key: SlabKey) -> jax.Array:
        """(B, D) -> (B, n) or (B, K), of a group of vectors."""
        return self.classifier(states) if key == CLASSIFIER_BIASES else self(states, int(key == BIASES))


def decode_group(slabs: Slabs, vectors: VectorDecoder, rows: jax.Array, key: SlabKey) -> jax.Array:
    """(B, D) -> slabs (B, kh, kw, in, out) or vectors (B, n), of the group that the key names."""
    if key.what == KERNELS:
        height, width, in_size, out_size = key.shape
        return slabs(rows, (height, width, in_size, out_size))
    if key.what == CLASSIFIERS:
        return slabs.classifier(rows, key.shape[2])
    return vectors.decode(rows, key)


def vector_key(spec: ParamSpec) -> SlabKey:
    """Group of a vector."""
    if spec.role is Role.CLASSIFIER_BIAS:
        return CLASSIFIER_BIASES
    return SCALES if spec.role is Role.SCALE else BIASES


def vector_tensors(config: "GHNConfig", size: int | None = None) -> list[ReleaseTensor]:
    """The vector decoder's tensors in the release's checkpoints; `size` as in `VectorDecoder`."""
    hid, size = config.hid, size or max(config.max_shape[:2])
    return [
        *linear("decoder_1d.fc.0", ("decoder_1d", "mlp", "fc_0"), 2 * hid, hid),
        *spread("decoder_1d.fc.2", ("decoder_1d", "mlp", "fc_2"), 2 * hid, (2, size), (0, 1)),
        *linear("bias_class.1", ("decoder_1d", "bias_class"), config.num_classes, size),
    ]
