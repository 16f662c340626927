"""The low-rank decoder: wide tensors as products of two thin matrices (docs/method.md, section 16).

Zhou, Knyazev, Jolicoeur-Martineau and Fu, "LoGAH: Predicting 774-Million-Parameter Transformers using Graph
HyperNetworks with 1/100 Parameters" (2024). Works with any encoder.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from ghn_jax.graphs.param_spec import VECTOR_ROLES, ParamSpec, Role
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor, linear, spread
from ghn_jax.hypernet.decoders.fitting import (
    decoded_shape,
    fit_token_table,
    fit_vector,
    grouped_size,
    is_token_table,
    lay_out,
    normalised,
    tile,
)
from ghn_jax.hypernet.decoders.slabs import SlabKey, VectorDecoder, vector_key, vector_tensors
from ghn_jax.hypernet.dense import PRECISION, Linear, dense
from ghn_jax.hypernet.json_fields import check_types
from ghn_jax.hypernet.protocols import Decoder, DecoderConfig, register

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig


class ProductKey(NamedTuple):
    """A group of tensors of one shape (out, in, kh, kw); vectors are the two rows of (2, n), with n in place of in."""

    shape: tuple[int, ...]
    row: int | None = None


@register("low_rank")
@dataclasses.dataclass(frozen=True)
class LowRankDecoderConfig(DecoderConfig):
    """Low-rank decoder. Tensors are tiled beyond `GHNConfig.max_shape` only, which costs no weights here.

    Attributes:
      rank: r, of the products.
      width: W, most rows (out * kernel height) and columns (in * kernel width) of a tensor.
      vector_decoder: whether vectors come from an MLP as in GHN-3 (of D / 2 outputs), instead of from products.
      deviation: standard deviation that every tensor of rank above 1 is scaled to, embeddings excepted, as for language
        models; 0 for the usual factors.
      token_seed: of the random first token of position tables over a sequence.
    """

    rank: int = 32
    width: int = 32_768
    vector_decoder: bool = False
    deviation: float = 0.0
    token_seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "GHN config: decoder")
        if not 1 <= self.rank <= MAX_RANK or not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(
                f"GHN config: rank and width must lie between 1 and {MAX_RANK} and {MAX_WIDTH}, got {self.rank} and "
                f"{self.width}"
            )
        if self.deviation < 0:
            raise ValueError(f"GHN config: deviation must not be negative, got {self.deviation}")

    def build(self, config: "GHNConfig") -> Decoder[ProductKey | SlabKey]:
        """The decoder."""
        return LowRankDecoder(self, config)

    def vector_size(self, config: "GHNConfig") -> int:
        """Outputs of the MLP of vectors."""
        return max(config.hid // 2, 1)

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """The MLP, the last layer, and the MLP of vectors; without what the release's files hold and never use."""
        hid, rank = config.hid, self.rank
        return [
            *linear("decoder.mlp.fc.0", ("decoder", "fc_0"), 4 * hid, hid),
            *linear("decoder.mlp.fc.2", ("decoder", "fc_2"), 8 * hid, 4 * hid),
            *spread("decoder.mlp.fc.4", ("decoder", "fc_4"), 8 * hid, (2 * rank, rank), (0, 1)),
            *linear("decoder.l2", ("decoder", "last"), self.width, rank),
            *(vector_tensors(config, self.vector_size(config)) if self.vector_decoder else []),
        ]

    def to_release(self) -> dict[str, Any]:
        """The release's keys."""
        return {
            "decoder": "conv",
            "lora": True,
            "lora_r": self.rank,
            "max_ck_lora": self.width,
            "use_1d_decoder": self.vector_decoder,
        }

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Of a checkpoint that says "lora".

        Raises:
          ValueError: if it says no rank or width.
        """
        if not release.get("lora", False):
            return None
        if missing := [key for key in ("lora_r", "max_ck_lora") if key not in release]:
            raise ValueError(f"the checkpoint's config lacks {', '.join(missing)}")
        return cls(
            rank=release["lora_r"],
            width=release["max_ck_lora"],
            vector_decoder=release.get("use_1d_decoder", False),
            deviation=LANGUAGE_DEVIATION if release.get("language", False) else 0.0,
        )


MAX_RANK, MAX_WIDTH = 1024, 1 << 20

LANGUAGE_DEVIATION = 0.02
"""`initializer_range` of GPT-2."""

_EPSILON = 1e-7


class LowRankDecoder(nn.Module):
    """Products of two matrices that one MLP makes of a node's state."""

    options: LowRankDecoderConfig
    config: "GHNConfig"

    def setup(self) -> None:
        """Creates the layers."""
        self.decoder = Factors(self.config.hid, self.options.rank, self.options.width)
        if self.options.vector_decoder:
            self.decoder_1d = VectorDecoder(self.config, self.options.vector_size(self.config), small=True)

    @nn.nowrap
    def key(self, spec: ParamSpec) -> ProductKey | SlabKey:
        """Group of a tensor.

        Raises:
          ValueError: for a tensor with more rows or columns than the decoder's width.
        """
        rows, columns = self.config.max_shape[:2]
        if spec.role in VECTOR_ROLES:
            if self.options.vector_decoder:
                return vector_key(spec)
            key = ProductKey((2, grouped_size(spec.size, rows), 1, 1), int(spec.role is not Role.SCALE))
            height, width = 2 * key.shape[1], 1
        else:
            out_size, in_size, height, width = decoded_shape(spec)
            in_size = in_size if is_token_table(spec) else grouped_size(in_size, columns)
            key = ProductKey((grouped_size(out_size, rows), in_size, height, width))
            height, width = key.shape[0] * height, in_size * width
        if max(height, width) > self.options.width:
            raise ValueError(
                f"{spec.name!r} of shape {spec.shape} needs a product of {height} x {width}, but the low-rank decoder "
                f"is {self.options.width} wide; use one with a larger width or a smaller max_shape"
            )
        return key

    def decode(self, rows: jax.Array, key: ProductKey | SlabKey) -> jax.Array:
        """(B, D) -> kernels (B, kh, kw, in, out) or vectors (B, n)."""
        if isinstance(key, SlabKey):
            return self.decoder_1d.decode(rows, key)
        out_size, in_size, height, width = key.shape
        if key.row is not None:
            return self.decoder(rows, slice(key.row * in_size, (key.row + 1) * in_size), slice(1))[..., 0]
        product = self.decoder(rows, slice(out_size * height), slice(in_size * width))
        return product.reshape(-1, out_size, height, in_size, width).transpose(0, 2, 4, 3, 1)

    @nn.nowrap
    def fit(self, row: jax.Array, spec: ParamSpec) -> jax.Array:
        """Cut, tiled, normalised and laid out."""
        if spec.role in VECTOR_ROLES:
            return fit_vector(self.config, row, spec)
        out_size, in_size, *_ = decoded_shape(spec)
        if is_token_table(spec):
            return fit_token_table(row, spec, self.options.token_seed)
        row = tile(row, 2, self.config.max_shape[1], in_size)
        row = tile(row, 3, self.config.max_shape[0], out_size)
        if spec.role is Role.POSITION and spec.rank == 2:  # a table of embeddings, as language models have
            return lay_out(row, spec)
        if self.options.deviation:
            return lay_out(row * (self.options.deviation / (jnp.std(row, ddof=1) + _EPSILON)), spec)
        return lay_out(normalised(self.config, row, spec), spec)


class Factors(nn.Module):
    """A (W, r) and B (r, W) from a state, of which only the needed rows and columns are computed.

    An MLP D, 4 D, 8 D, 2 r^2 makes a matrix (2 r, r), whose rows a linear layer widens to W. The 2 r W numbers are then
    read again, row by row, as (2 W, r): first the rows of A, then the columns of B.
    """

    hid: int
    rank: int
    width: int

    def setup(self) -> None:
        """Creates the layers."""
        self.fc_0 = dense(self.hid, 4 * self.hid)
        self.fc_2 = dense(4 * self.hid, 8 * self.hid)
        self.fc_4 = Linear(8 * self.hid, (2 * self.rank, self.rank))
        self.last = dense(self.rank, self.width)

    def __call__(self, states: jax.Array, rows: slice, columns: slice) -> jax.Array:
        """(B, D) -> those rows and columns of A B, (B, rows, columns)."""
        hidden = nn.relu(self.fc_2(nn.relu(self.fc_0(states))))
        left, right = self._lines(hidden, 0, rows), self._lines(hidden, self.rank, columns)
        return jnp.einsum("bir,bjr->bij", left, right, precision=PRECISION)

    def _lines(self, hidden: jax.Array, start: int, lines: slice) -> jax.Array:
        """(B, 8 D) -> lines (B, n, r) of the half that begins with row `start` of the matrix (2 r, r)."""
        begin, end = (lines.start or 0) * self.rank, lines.stop * self.rank
        first, last = begin // self.width, -(-end // self.width)
        wide = self.last(nn.relu(self.fc_4.part(hidden, slice(start + first, start + last))))
        flat = wide.reshape(len(hidden), -1)[:, begin - first * self.width : end - first * self.width]
        return flat.reshape(len(hidden), -1, self.rank)
