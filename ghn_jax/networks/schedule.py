"""The schedule of a network: for each layer call of its plan one call of a program."""

import dataclasses
import functools

import jax

from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks.plan import IMAGES, Plan
from ghn_jax.networks.programs import Device, ProgramKey, signature


@dataclasses.dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
      key: its programs.
      params: path in the network, shape and type of each parameter, in the order in which the programs take them.
      inputs, output: value ids.
      wanted: ids of the inputs whose cotangents are wanted.
      last: ids that are used for the last time here.
      kind: name of the op, for reports.
    """

    key: ProgramKey
    params: tuple[tuple[Path, jax.ShapeDtypeStruct], ...]
    inputs: tuple[int, ...]
    output: int
    wanted: tuple[int, ...]
    last: tuple[int, ...]
    kind: str


@functools.lru_cache(maxsize=1024)
def schedule(
    plan: Plan,
    images: jax.ShapeDtypeStruct,
    backward: bool,
    train: bool,
    device: Device | None,
    *,
    of_images: bool = False,
) -> tuple[Step, ...]:
    """Program calls of `plan` for images of a given shape.

    Args:
      plan: the network.
      images: shape (B, H, W, 3) and type, which is that of all values.
      backward: whether cotangents are wanted.
      train: whether dropout is active.
      device: where it runs; None for the default device.
      of_images: whether the images' cotangent is wanted, too.
    """
    last_use = {i: place for place, call in enumerate(plan.calls) for i in call.inputs}
    shapes = {IMAGES: images}
    steps = []
    for place, call in enumerate(plan.calls):
        inputs = tuple(shapes[i] for i in call.inputs)
        own = signature(call.layer, inputs)
        shapes[call.output] = own.output
        wanted = tuple(of_images or i != IMAGES for i in call.inputs) if backward else ()
        key = ProgramKey(call.layer, inputs, wanted, train and getattr(call.layer, "random", False), device)
        steps.append(
            Step(
                key=key,
                params=tuple(((*call.prefix, *path), shape) for path, shape in own.params),
                inputs=call.inputs,
                output=call.output,
                wanted=tuple(i for i in call.inputs if of_images or i != IMAGES) if backward else (),
                last=tuple(i for i in dict.fromkeys(call.inputs) if last_use[i] == place),
                kind=call.kind,
            )
        )
    return tuple(steps)
