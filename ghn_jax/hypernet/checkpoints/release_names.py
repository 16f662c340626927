"""Names and layouts of the public release's checkpoints, and ours (SPEC: checkpoints of the public release)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ghn_jax.graphs.vocabulary import Primitive
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.encoders.node_features import channel_sizes, spatial_sizes

Transform = Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """One tensor: its name and shape in the release, our path, and the change of layout in both directions."""

    name: str
    shape: tuple[int, ...]
    path: tuple[str, ...]
    to_ours: Transform
    to_release: Transform


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _plain(name: str, path: tuple[str, ...], *shape: int) -> Entry:
    return Entry(name, shape, path, _same, _same)


def _grid(
    name: str, path: tuple[str, ...], shape: tuple[int, ...], grid: tuple[int, ...], order: tuple[int, ...]
) -> Entry:
    """A tensor that the release stores flat: viewed as `grid` and transposed to `order` in ours."""
    inverse = tuple(int(place) for place in np.argsort(order))
    ours = tuple(grid[place] for place in order)
    return Entry(
        name,
        shape,
        path,
        lambda array: np.ascontiguousarray(array.reshape(grid).transpose(order)),
        lambda array: np.ascontiguousarray(array.reshape(ours).transpose(inverse)).reshape(shape),
    )


def _linear(name: str, path: tuple[str, ...], out_size: int, in_size: int, convolution: bool = False) -> list[Entry]:
    shape = (out_size, in_size, 1, 1) if convolution else (out_size, in_size)
    return [
        _grid(f"{name}.weight", (*path, "kernel"), shape, (out_size, in_size), (1, 0)),
        _plain(f"{name}.bias", (*path, "bias"), out_size),
    ]


def _mlp(name: str, path: tuple[str, ...], sizes: tuple[int, int, int]) -> list[Entry]:
    first, hidden, last = sizes
    return [
        *_linear(f"{name}.0", (*path, "fc_0"), hidden, first),
        *_linear(f"{name}.2", (*path, "fc_2"), last, hidden),
    ]


def _spread(
    name: str, path: tuple[str, ...], in_size: int, grid: tuple[int, ...], order: tuple[int, ...]
) -> list[Entry]:
    """A linear layer whose output is a grid, in another order of axes in ours."""
    out_size = int(np.prod(grid))
    return [
        _grid(f"{name}.weight", (*path, "kernel"), (out_size, in_size), (*grid, in_size), (len(grid), *order)),
        _grid(f"{name}.bias", (*path, "bias"), (out_size,), grid, order),
    ]


def _gnn(config: GHNConfig) -> list[Entry]:
    hid = config.hid
    if config.hypernet == "mlp":
        return _mlp("gnn.fc", ("gnn", "fc"), (hid, hid, hid))
    ve = config.virtual_edges
    entries = _mlp("gnn.mlp.fc", ("gnn", "mlp"), (hid, hid // 2 if ve else hid, hid))
    if ve:
        entries += _mlp("gnn.mlp_ve.fc", ("gnn", "mlp_ve"), (hid, hid // 2, hid))
    for ours, theirs in (("input", "ih"), ("hidden", "hh")):
        path = ("gnn", "gru", f"{ours}_kernel")
        entries.append(_grid(f"gnn.gru.weight_{theirs}", path, (3 * hid, hid), (3 * hid, hid), (1, 0)))
    for ours, theirs in (("input", "ih"), ("hidden", "hh")):
        entries.append(_plain(f"gnn.gru.bias_{theirs}", ("gnn", "gru", f"{ours}_bias"), 3 * hid))
    return entries


def _decoder(config: GHNConfig) -> list[Entry]:
    hid, classes, (rows, columns, size, _) = config.hid, config.num_classes, config.max_shape
    classifier = ("decoder", "class_layer_predictor")
    if config.decoder == "mlp":
        return [
            *_linear("decoder.mlp.fc.0", ("decoder", "mlp", "fc_0"), 2 * hid, hid),
            *_spread(
                "decoder.mlp.fc.2", ("decoder", "mlp", "fc_2"), 2 * hid, (rows, columns, size, size), (2, 3, 1, 0)
            ),
            *_spread("decoder.class_layer_predictor.1", classifier, 2 * hid, (classes, rows), (1, 0)),
        ]
    last = [
        entry._replace(shape=(*entry.shape, 1, 1), to_release=_with_ones(entry))
        if entry.name.endswith("weight")
        else entry
        for entry in _spread("decoder.conv.2", ("decoder", "conv_2"), 8 * hid, (rows, columns), (1, 0))
    ]
    return [
        *_spread("decoder.fc.0", ("decoder", "fc"), hid, (4 * hid, size, size), (1, 2, 0)),
        *_linear("decoder.conv.0", ("decoder", "conv_0"), 8 * hid, 4 * hid, convolution=True),
        *last,
        *_linear("decoder.class_layer_predictor.1", classifier, classes, rows, convolution=True),
    ]


def _with_ones(entry: Entry) -> Transform:
    return lambda array: entry.to_release(array)[..., None, None]


def release_entries(config: GHNConfig) -> list[Entry]:
    """Every tensor of a hypernetwork that the release knows, in the release's order."""
    hid, vector = config.hid, config.vector_size
    entries = []
    if config.layernorm:
        entries += [_plain("ln.weight", ("ln", "scale"), hid), _plain("ln.bias", ("ln", "bias"), hid)]
    entries.append(_plain("embed.weight", ("encoder", "embed"), len(Primitive), hid))
    if config.shape_encoding:
        for table, sizes in (
            ("embed_spatial", spatial_sizes(config.max_shape[3])),
            ("embed_channel", channel_sizes(config.num_classes)),
        ):
            path = ("encoder", "shape_enc", table)
            entries.append(_plain(f"shape_enc.{table}.weight", path, len(sizes) + 1, hid // 4))
    return [
        *entries,
        *_gnn(config),
        *_decoder(config),
        *_linear("decoder_1d.fc.0", ("decoder_1d", "mlp", "fc_0"), 2 * hid, hid),
        *_spread("decoder_1d.fc.2", ("decoder_1d", "mlp", "fc_2"), 2 * hid, (2, vector), (0, 1)),
        *_linear("bias_class.1", ("decoder_1d", "bias_class"), config.num_classes, vector),
    ]


def config_from_release(config: Mapping[str, Any], source: str) -> GHNConfig:
    """Our configuration from the release's; keys it does not know are ignored, since weights are checked one by one.

    Raises:
      ValueError: naming a missing key or a bad value, and the source.
    """
    keys = ("max_shape", "num_classes", "hypernet", "decoder", "weight_norm", "ve", "layernorm", "hid")
    missing = [key for key in keys if key not in config]
    if missing:
        raise ValueError(f"{source}: the checkpoint's config lacks {', '.join(missing)}")
    try:
        return GHNConfig(
            max_shape=tuple(int(size) for size in config["max_shape"]),  # pyright: ignore[reportArgumentType]
            num_classes=int(config["num_classes"]),
            hid=int(config["hid"]),
            hypernet=config["hypernet"],
            decoder=config["decoder"],
            virtual_edges=bool(config["ve"]),
            normalization="fan_in" if config["weight_norm"] else "none",
            layernorm=bool(config["layernorm"]),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None


def config_to_release(config: GHNConfig) -> dict[str, Any]:
    """The release's configuration from ours.

    Raises:
      ValueError: for an ablation that the release's format cannot say; names the field.
    """
    release = {
        "max_shape": config.max_shape,
        "num_classes": config.num_classes,
        "hypernet": config.hypernet,
        "decoder": config.decoder,
        "weight_norm": config.normalization != "none",
        "ve": config.virtual_edges,
        "layernorm": config.layernorm,
        "hid": config.hid,
    }
    readable = config_from_release(release, "export")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(readable, field.name):
            raise ValueError(f"export: the release's checkpoint format cannot say {field.name}={value!r}")
    return release


def params_from_release(config: GHNConfig, state: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Variables {"params": ...} from the release's tensors.

    Raises:
      ValueError: naming missing or extra tensors, or one of a wrong shape or type, and the source.
    """
    entries = release_entries(config)
    known = {entry.name for entry in entries}
    missing, extra = sorted(known - set(state)), sorted(set(state) - known)
    if missing:
        raise ValueError(f"{source}: tensors are missing: {', '.join(missing)}")
    if extra:
        raise ValueError(f"{source}: tensors that its config does not ask for: {', '.join(extra)}")
    params: dict[str, Any] = {}
    for entry in entries:
        array = state[entry.name]
        if array.shape != entry.shape or array.dtype != np.float32:
            raise ValueError(
                f"{source}: tensor {entry.name} is {array.dtype} {array.shape}, "
                f"its config asks for float32 {entry.shape}"
            )
        *parents, leaf = entry.path
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = entry.to_ours(array)
    return {"params": params}


def params_to_release(config: GHNConfig, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The release's tensors, in its order, from variables {"params": ...}.

    Raises:
      ValueError: naming a weight that is missing.
    """
    state = {}
    for entry in release_entries(config):
        node: Any = variables["params"]
        for part in entry.path:
            if part not in node:
                raise ValueError(f"export: the variables lack {'/'.join(entry.path)}")
            node = node[part]
        state[entry.name] = entry.to_release(np.asarray(node, np.float32))
    return state
