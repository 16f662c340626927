"""The two variation points of a hypernetwork, and the kinds of each that are known by name.

An encoder turns a padded batch of graphs into node states, a decoder turns states into tensors. Either is one file: a
frozen dataclass with its options, registered under a name, and the Flax module that it builds. Prediction, gradients,
checkpoints and command lines know only what stands here.
"""

import abc
import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import jax

from ghn_jax.graphs.batching import GraphBatch
from ghn_jax.graphs.param_spec import ParamSpec
from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor

if TYPE_CHECKING:
    from ghn_jax.hypernet.config import GHNConfig

DecodingKey = Hashable
"""What tensors that are decoded in one call have in common; few distinct values, since each is a compiled program."""

_Key = TypeVar("_Key", bound=Hashable)


class FlaxModule(Protocol):
    """What prediction uses of `flax.linen.Module`."""

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Draws weights."""
        ...

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module with weights."""
        ...


class Encoder(FlaxModule, Protocol):
    """A Flax module from graphs to node states. Every node's state depends on the nodes of its own graph only."""

    def __call__(self, batch: GraphBatch) -> jax.Array:
        """States (G, N, D) of the nodes; what stands in padded rows is ignored and gets no gradient."""
        ...


class Decoder(FlaxModule, Protocol[_Key]):
    """A Flax module from node states to tensors, in two steps: decoding many rows in one call, fitting each alone.

    Generic in its own type of keys. The names of its weights at the top of the tree begin with "decoder". `key` and
    `fit` use no weights.
    """

    def key(self, spec: ParamSpec) -> _Key:
        """The group that a tensor is decoded in.

        Raises:
          ValueError: for a tensor that it does not predict; names it.
        """
        ...

    def decode(self, rows: jax.Array, key: _Key) -> jax.Array:
        """States (B, D) of tensors of one group -> (B, ...), what each of them is cut from."""
        ...

    def fit(self, row: jax.Array, spec: ParamSpec) -> jax.Array:
        """One row of what `decode` returns -> the tensor, normalised and in the layout of the spec.

        Called with specs of role, shape and axes alone (see `kind_of`), since each is a compiled program.
        """
        ...


def kind_of(spec: ParamSpec) -> ParamSpec:
    """What fitting depends on: a spec without path, index and node."""
    return ParamSpec((), spec.shape, spec.axes, spec.role, 0)


@dataclasses.dataclass(frozen=True)
class _PartConfig(abc.ABC):
    """Options of an encoder or a decoder: a frozen dataclass of plain values (bool, int, float, str, tuples of them).

    Attributes:
      kind: name that it is registered under.
    """

    kind: ClassVar[str]

    def release_tensors(self, config: "GHNConfig") -> list[ReleaseTensor]:
        """Its tensors in the public release's checkpoints, in their order.

        Raises:
          ValueError: for a kind or an ablation that the release does not have.
        """
        raise ValueError(f"the release's checkpoint format knows no {self.kind!r}")

    def to_release(self) -> dict[str, Any]:
        """What it adds to the configuration in the release's checkpoints.

        Raises:
          ValueError: as `release_tensors`.
        """
        raise ValueError(f"the release's checkpoint format knows no {self.kind!r}")

    @classmethod
    def from_release(cls, release: Mapping[str, Any]) -> Self | None:
        """Its options from the configuration in a checkpoint of the release; None if that is of another kind."""
        return None


@dataclasses.dataclass(frozen=True)
class EncoderConfig(_PartConfig):
    """Options of an encoder."""

    @property
    def cutoff(self) -> int:
        """Largest distance between nodes that the encoder looks at."""
        return 1

    @abc.abstractmethod
    def build(self, config: "GHNConfig") -> Encoder:
        """The module, for the widths of the whole configuration."""


@dataclasses.dataclass(frozen=True)
class DecoderConfig(_PartConfig):
    """Options of a decoder."""

    def weights_read(self, config: "GHNConfig") -> int:
        """Number of weights that every call reads as a whole, however few rows it decodes.

        Where they are many, groups of tensors are decoded in fewer calls, at the price of more programs.
        """
        return 0

    @abc.abstractmethod
    def build(self, config: "GHNConfig") -> Decoder[Any]:
        """The module, for the widths of the whole configuration."""


ENCODERS: dict[str, type[EncoderConfig]] = {}
DECODERS: dict[str, type[DecoderConfig]] = {}
"""Kinds by name: what files and command lines say."""

_Config = TypeVar("_Config", bound=_PartConfig)


def register(kind: str) -> Callable[[type[_Config]], type[_Config]]:
    """Class decorator: makes an encoder's or a decoder's configuration known under a name.

    Raises:
      ValueError: for a name that another class has.
    """

    def decorate(cls: type[_Config]) -> type[_Config]:
        kinds: dict[str, Any] = ENCODERS if issubclass(cls, EncoderConfig) else DECODERS
        if kind in kinds:
            raise ValueError(f"{kind!r} is the name of {kinds[kind].__qualname__} already")
        cls.kind = kind
        kinds[kind] = cls
        return cls

    return decorate
