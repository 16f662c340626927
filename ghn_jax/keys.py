"""Random keys by purpose: one seed, one independent root for each named use, so that no two uses share a key."""

import zlib

import jax

INITIALISATION = "initialisation of the hypernetwork"
DROPOUT = "dropout"
AUGMENTATION = "augmentation"
NOISE = "noise of test images"
RANDOM_INITIALISATION = "random initialisation of networks"
OWN_WEIGHTS = "a model's own weights"
DETECTOR_HEADS = "heads of a detector"
DETECTOR_TRAINING = "training of a detector"


def named_key(seed: int, name: str) -> jax.Array:
    """The root key of one use of a seed: the seed's key with a hash of the name folded in.

    Two names give unrelated keys; so do the keys that `jax.random.split` and `jax.random.fold_in` derive from them. The
    roots themselves must not be derived from one another by small numbers: ``fold_in(key(seed), 0)`` equals
    ``split(key(seed))[0]``.

    Args:
      seed: of the run.
      name: of the use; the hash is CRC-32, the same in every process and version.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
