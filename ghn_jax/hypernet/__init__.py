"""The hypernetwork: GHN-3, GHN-2, GHN-1 and the MLP baseline, the low-rank decoder, prediction, checkpoints."""

from ghn_jax.hypernet.api import embed, predict
from ghn_jax.hypernet.checkpoints.loading import load_ghn, packaged_names
from ghn_jax.hypernet.checkpoints.own import (
    PretrainedGHN,
    export_release_checkpoint,
    read_checkpoint,
    save_checkpoint,
    save_file,
)
from ghn_jax.hypernet.checkpoints.pretrained import save_pretrained
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.ghn import GHN, init_ghn
from ghn_jax.hypernet.grouping import PreparedBatch, prepare
from ghn_jax.hypernet.other_classes import with_classes
from ghn_jax.hypernet.prediction import FlatParams, compile_for, predict_params, predict_with_vjp
from ghn_jax.hypernet.protocols import Decoder, Encoder

__all__ = [
    "Decoder",
    "Encoder",
    "FlatParams",
    "GHN",
    "GHNConfig",
    "PreparedBatch",
    "PretrainedGHN",
    "compile_for",
    "embed",
    "export_release_checkpoint",
    "init_ghn",
    "load_ghn",
    "packaged_names",
    "predict",
    "predict_params",
    "predict_with_vjp",
    "prepare",
    "read_checkpoint",
    "save_checkpoint",
    "save_file",
    "save_pretrained",
    "with_classes",
]
