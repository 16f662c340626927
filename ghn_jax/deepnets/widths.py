"""Width and fc_dim of a network: drawn at every use in training, once for evaluation."""

import numpy as np

from ghn_jax.deepnets.count import parameter_count, product_count
from ghn_jax.deepnets.genotype import NetworkArgs

COUNTED_WIDTH, COUNTED_FC_DIM = 32, 256
"""C and fc_dim at which the weights of an architecture are counted."""

TRAINING_WIDTHS = (32, 48, 64, 80, 96, 112, 128)
TRAINING_FC_DIMS = (64, 128, 192, 256, 320, 384, 448, 512)
EVALUATION_WIDTHS = (32, 48, 64)
EVALUATION_FC_DIMS = (64, 128, 256)

_TRAINING_LIMITS = ((800_000, 12, 1), (400_000, 10, 2), (200_000, 8, 3))
"""Above so many weights, or so many cells, only the first so many widths."""
_EVALUATION_LIMITS = ((400_000, 1), (250_000, 2))


def counted_params(args: NetworkArgs) -> int:
    """Weights at C = 32, fc_dim 256 and 10 classes: the number by which limits and widths are decided."""
    return parameter_count(args.replace(C=COUNTED_WIDTH, fc_dim=COUNTED_FC_DIM, num_classes=10))


def counted_products(args: NetworkArgs) -> int:
    """Products for an image of 32 x 32 at the same widths."""
    return product_count(args.replace(C=COUNTED_WIDTH, fc_dim=COUNTED_FC_DIM, num_classes=10, image_size=32))


def draw_width(args: NetworkArgs, rng: np.random.Generator, widths: tuple[int, ...] = TRAINING_WIDTHS) -> NetworkArgs:
    """Arguments with the width and fc_dim for one use in training (small networks may be wide).

    Args:
      args: the network.
      rng: draws.
      widths: to draw from, in rising order; only the first ones are left to large networks.
    """
    params, allowed = counted_params(args), widths
    for limit, cells, count in _TRAINING_LIMITS:
        special = count == 1 and (not args.glob_avg or _has_large_kernels(args))
        if params > limit or args.n_cells > cells or special:
            allowed = widths[:count]
            break
    width = _pick(rng, allowed)
    free = len(allowed) == len(widths) and width <= 64
    return args.replace(C=width, fc_dim=_pick(rng, TRAINING_FC_DIMS if free else TRAINING_FC_DIMS[:4]))


def draw_evaluation_width(args: NetworkArgs, rng: np.random.Generator, width: bool = True) -> NetworkArgs:
    """Arguments with the fc_dim (and, if asked, the width) that an architecture of an evaluation split keeps.

    How the release draws these is not published; the limits here fit its 62 evaluation networks at hand.
    """
    fc_dim = _pick(rng, EVALUATION_FC_DIMS)
    if not width:
        return args.replace(fc_dim=fc_dim)
    params = counted_params(args)
    count = next((count for limit, count in _EVALUATION_LIMITS if params > limit), len(EVALUATION_WIDTHS))
    return args.replace(C=_pick(rng, EVALUATION_WIDTHS[:count]), fc_dim=fc_dim)


def _has_large_kernels(args: NetworkArgs) -> bool:
    """conv_5x5 or conv_7x7 themselves; the separable and dilated ones do not count."""
    return any(op in ("conv_5x5", "conv_7x7") for op, _ in (*args.genotype.normal, *args.genotype.reduce))


def _pick(rng: np.random.Generator, values: tuple[int, ...]) -> int:
    return values[rng.integers(len(values))]
