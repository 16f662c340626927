"""`predict` and `embed`: one call from architectures to parameters or embeddings."""

import functools
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ghn_jax.fields import COUNT, check_number
from ghn_jax.graphs.arch_graph import ArchGraph
from ghn_jax.graphs.batching import batch_graphs
from ghn_jax.hypernet import programs
from ghn_jax.hypernet.checkpoints.loading import DEFAULT_GHN, load_ghn
from ghn_jax.hypernet.checkpoints.own import PretrainedGHN
from ghn_jax.hypernet.grouping import prepare
from ghn_jax.hypernet.prediction import decode_states
from ghn_jax.hypernet.training_range import warn_once

_MOST_NAMED = 3

GHNSource: TypeAlias = PretrainedGHN | str | os.PathLike[str] | None
"""A loaded hypernetwork, a source for `load_ghn`, or None for the packaged default."""


@functools.cache
def default_ghn() -> PretrainedGHN:
    """The packaged hypernetwork that is used when none is given, loaded once a process."""
    return load_ghn(DEFAULT_GHN)


def resolve_ghn(ghn: GHNSource) -> PretrainedGHN:
    """The hypernetwork itself, from a loaded one, a source for `load_ghn`, or None for the packaged default.

    Raises:
      ValueError: for anything else, or where `load_ghn` does.
    """
    if isinstance(ghn, PretrainedGHN):
        return ghn
    if ghn is None:
        return default_ghn()
    source: Any = ghn
    if isinstance(source, str | os.PathLike):
        return load_ghn(source)
    raise ValueError(f"ghn must be a loaded hypernetwork, a source for load_ghn or None, got a {type(ghn).__name__}")


def _check_graphs(graphs: Sequence[Any]) -> None:
    """Raises ValueError unless these are architecture graphs."""
    for graph in graphs:
        if not isinstance(graph, ArchGraph):
            raise ValueError(
                f"a hypernetwork reads ArchGraph (of `trace` or `network_graph`), got a {type(graph).__name__}"
            )


def _parameter_dtype(dtype: DTypeLike) -> np.dtype:
    """The type; raises ValueError for one that holds no weights."""
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype of parameters must be a floating type such as float32, got {dtype!r}") from None
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype of parameters must be a floating type such as float32, got {found.name}")
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise ValueError(f"dtype of parameters is {found.name}, but JAX has it disabled: set jax_enable_x64")
    return found


def predict(
    graph: ArchGraph,
    ghn: GHNSource = None,
    *,
    classifier: bool = True,
    allow_missing: bool = False,
    dtype: DTypeLike = jnp.float32,
    with_embeddings: bool = False,
) -> dict[str, Any]:
    """Predicts all parameters of one architecture.

    Args:
      graph: the architecture.
      ghn: a loaded hypernetwork, a source for `load_ghn`, or None for the packaged default.
      classifier: False leaves out the classifier, for a task with another number of classes.
      allow_missing: True leaves out parameters that no hypernetwork predicts (`graph.kept`) instead of refusing.
      dtype: of the parameters.
      with_embeddings: adds "embeddings", float32 (N, D), the states that were decoded.

    Returns:
      {"params": nested dict of arrays at the paths of the graph's specs}, ready for `module.apply`; the array itself
      if the model's parameters are one array without a path.

    Raises:
      ValueError: for a graph above the largest bucket, a classifier of another number of classes than the GHN's,
        parameters of the model that are not predicted (names them), or a `dtype` that is no floating one.

    Warns:
      UserWarning: once, what a packaged hypernetwork was trained on, and where this architecture is outside of it.
    """
    _check_graphs([graph])
    wanted = _parameter_dtype(dtype)
    if graph.kept and not allow_missing:
        names = ", ".join(f"{leaf.name!r} ({leaf.reason})" for leaf in graph.kept[:_MOST_NAMED])
        more = f" and {len(graph.kept) - _MOST_NAMED} more" if len(graph.kept) > _MOST_NAMED else ""
        raise ValueError(
            f"architecture {graph.name!r} has parameters that are not predicted: {names}{more}; init_like keeps the "
            "model's own initialisation of them, allow_missing=True leaves them out"
        )
    loaded = resolve_ghn(ghn)
    warn_once(loaded.trained_on, [graph])
    prepared = prepare(loaded.config, [graph], classifier)
    states = programs.embed_program(loaded.ghn)(loaded.variables, prepared.batch)
    (flat,) = decode_states(loaded.ghn, loaded.variables, states, prepared)
    if wanted != jnp.float32:
        flat = {path: array.astype(wanted) for path, array in flat.items()}
    result: dict[str, Any] = {"params": flat[()] if () in flat else flax.traverse_util.unflatten_dict(flat)}
    if with_embeddings:
        result["embeddings"] = states[0, : graph.num_nodes]
    return result


def embed(graphs: Sequence[ArchGraph], ghn: GHNSource = None, *, at_once: int = 8) -> np.ndarray:
    """Embeddings of architectures: the mean of their node states (paper, section 4.3).

    Args:
      graphs: architectures.
      ghn: a loaded hypernetwork, a source for `load_ghn`, or None for the packaged default.
      at_once: graphs in one padded batch.

    Returns:
      float32 (G, D), in the order of the graphs.

    Raises:
      ValueError: for a graph above the largest bucket, or `at_once` below 1.

    Warns:
      UserWarning: as `predict`.
    """
    check_number("at_once", at_once, COUNT)
    if isinstance(graphs, ArchGraph):
        raise ValueError(f"embed takes a sequence of architectures, got one ({graphs.name!r}): give [graph]")
    _check_graphs(graphs)
    loaded = resolve_ghn(ghn)
    warn_once(loaded.trained_on, graphs)
    program = programs.embed_program(loaded.ghn)
    embeddings = np.zeros((len(graphs), loaded.config.hid), np.float32)
    # Graphs of similar size share a batch, so that little of it is padding.
    order = sorted(range(len(graphs)), key=lambda place: graphs[place].num_nodes)
    for start in range(0, len(graphs), at_once):
        places = order[start : start + at_once]
        batch = batch_graphs([graphs[place] for place in places], cutoff=loaded.config.encoder.cutoff)
        states = np.asarray(jax.device_get(program(loaded.variables, batch)))
        for place, rows in zip(places, batch.unpad(states), strict=True):
            embeddings[place] = rows.mean(axis=0)
    return embeddings
