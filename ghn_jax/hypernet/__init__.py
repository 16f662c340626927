"""The hypernetwork: GHN-2, GHN-1 and the MLP baseline, prediction, checkpoints."""

from ghn_jax.hypernet.config import GHNConfig as GHNConfig
from ghn_jax.hypernet.ghn import GHN as GHN
from ghn_jax.hypernet.grouping import PreparedBatch as PreparedBatch
from ghn_jax.hypernet.grouping import prepare as prepare
from ghn_jax.hypernet.prediction import FlatParams as FlatParams
from ghn_jax.hypernet.prediction import predict_params as predict_params
from ghn_jax.hypernet.prediction import predict_with_vjp as predict_with_vjp
