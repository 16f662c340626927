"""The `arch` mesh: every device runs its own share of a meta-batch; gradients are summed by one compiled program.

Works the same for one device, several in one process, and several processes after `jax.distributed.initialize()`: each
process draws the same meta-batch and takes the shares of its own devices.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Device: TypeAlias = Any
"""A jax.Device, which type checkers take for a variable."""


def arch_mesh(devices: Sequence[Device] | None = None) -> Mesh:
    """One axis, ``arch``, over all devices of all processes (or those given)."""
    return Mesh(np.array(jax.devices() if devices is None else devices), ("arch",))


def local_places(mesh: Mesh) -> list[int]:
    """Places on the axis of the devices of this process."""
    return [place for place, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]


def agree(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true if it is on any process; all of them must ask."""
    if jax.process_count() == 1:
        return flags
    gathered = multihost_utils.process_allgather(np.array(flags, np.int32))
    return tuple(bool(value) for value in np.asarray(gathered).reshape(-1, len(flags)).max(axis=0))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The host's arrays on every device of the mesh."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, everywhere, lambda index: value[index])

    return jax.tree.map(place, tree)


def copy_on(tree: Any, device: Device) -> Any:
    """The copy of a replicated tree that one device of this process holds."""

    def pick(leaf: jax.Array) -> jax.Array:
        return next(shard.data for shard in leaf.addressable_shards if shard.device == device)

    # device_put: on a mesh of one device the shards still carry the mesh, and programs would be compiled twice.
    return jax.device_put(jax.tree.map(pick, tree), device)


def stack(trees: Sequence[Any], mesh: Mesh) -> Any:
    """One tree for each local device to arrays with a leading axis of all devices, sharded over it."""
    sharded = NamedSharding(mesh, PartitionSpec("arch"))

    def join(*leaves: jax.Array) -> jax.Array:
        shape = (mesh.size, *leaves[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharded, list(leaves))

    return jax.tree.map(join, *[_lifted(tree) for tree in trees])


@jax.jit
def _lifted(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)
