"""The hypernetwork: GHN-2, GHN-1 and the MLP baseline, prediction, checkpoints."""

from ghn_jax.hypernet.api import embed as embed
from ghn_jax.hypernet.api import predict as predict
from ghn_jax.hypernet.checkpoints.loading import load_ghn as load_ghn
from ghn_jax.hypernet.checkpoints.loading import packaged_names as packaged_names
from ghn_jax.hypernet.checkpoints.own import PretrainedGHN as PretrainedGHN
from ghn_jax.hypernet.checkpoints.own import export_release_checkpoint as export_release_checkpoint
from ghn_jax.hypernet.checkpoints.own import read_checkpoint as read_checkpoint
from ghn_jax.hypernet.checkpoints.own import save_checkpoint as save_checkpoint
from ghn_jax.hypernet.checkpoints.own import save_file as save_file
from ghn_jax.hypernet.config import GHNConfig as GHNConfig
from ghn_jax.hypernet.ghn import GHN as GHN
from ghn_jax.hypernet.ghn import init_ghn as init_ghn
from ghn_jax.hypernet.grouping import PreparedBatch as PreparedBatch
from ghn_jax.hypernet.grouping import prepare as prepare
from ghn_jax.hypernet.prediction import FlatParams as FlatParams
from ghn_jax.hypernet.prediction import compile_for as compile_for
from ghn_jax.hypernet.prediction import predict_params as predict_params
from ghn_jax.hypernet.prediction import predict_with_vjp as predict_with_vjp
