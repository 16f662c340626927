"""Which boxes anchors and proposals are trained to find, and which of them a step looks at; all of static shape."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ghn_jax.detection.boxes import overlap


class Match(NamedTuple):
    """Of boxes (A, 4) with true ones (M, 4).

    Attributes:
      positive: whether it stands for a true box, bool (A,).
      negative: whether it stands for the background, bool (A,); some are neither.
      true: row of its true box, (A,).
    """

    positive: jax.Array
    negative: jax.Array
    true: jax.Array


def match(boxes: jax.Array, true: jax.Array, there: jax.Array, *, high: float, low: float, best_of_each: bool) -> Match:
    """Positive from an overlap of `high` on, negative below `low`.

    Args:
      boxes: (A, 4).
      true: (M, 4), padded.
      there: which of them are no padding, bool (M,).
      high: overlap of positives.
      low: overlap of negatives.
      best_of_each: whether what overlaps a true box most is positive in any case.
    """
    overlaps = jnp.where(there[None, :], overlap(boxes, true), -1.0)
    best = overlaps.max(axis=1)
    positive = best >= high
    if best_of_each:
        most = overlaps.max(axis=0)
        positive |= ((overlaps == most[None, :]) & (most > 0)[None, :] & there[None, :]).any(axis=1)
    return Match(positive, ~positive & (best < low), overlaps.argmax(axis=1))


def sampled(key: jax.Array, found: Match, count: int, positives: float) -> tuple[jax.Array, jax.Array]:
    """At most `count` rows, drawn at random, at most a share of them positive.

    Returns:
      Which positives and which negatives, bool (A,) each.
    """
    of_positive, of_negative = jax.random.split(key)
    chosen = found.positive & (_ranks(of_positive, found.positive) < round(count * positives))
    room = count - chosen.sum()
    return chosen, found.negative & (_ranks(of_negative, found.negative) < room)


def _ranks(key: jax.Array, among: jax.Array) -> jax.Array:
    """A random order (A,) in which those of `among` come first."""
    draws = jnp.where(among, jax.random.uniform(key, among.shape), 2.0)
    return jnp.argsort(jnp.argsort(draws))
