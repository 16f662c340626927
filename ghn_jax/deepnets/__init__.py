"""DeepNets-1M: genotypes, graphs from arguments, sampling, dataset files."""

from ghn_jax.deepnets.count import parameter_count
from ghn_jax.deepnets.files.generation import Generated, GenerationPlan, generate_dataset
from ghn_jax.deepnets.files.reader import DatasetReader
from ghn_jax.deepnets.files.stored import StoredGraph
from ghn_jax.deepnets.files.writer import DatasetWriter
from ghn_jax.deepnets.genotype import Genotype, NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.deepnets.pictures import draw_statistics
from ghn_jax.deepnets.predefined import DARTS, VIT, resnet50_graph
from ghn_jax.deepnets.sampler import REJECTIONS, Architecture, sample_architecture
from ghn_jax.deepnets.sources import ArchitectureConfig
from ghn_jax.deepnets.splits import SPLITS
from ghn_jax.deepnets.statistics import statistics_table
from ghn_jax.deepnets.stream import ArchitectureStream, MetaBatch, in_background
from ghn_jax.deepnets.widths import draw_width

__all__ = [
    "Architecture",
    "ArchitectureConfig",
    "ArchitectureStream",
    "DARTS",
    "DatasetReader",
    "DatasetWriter",
    "Generated",
    "GenerationPlan",
    "Genotype",
    "MetaBatch",
    "NetworkArgs",
    "REJECTIONS",
    "SPLITS",
    "StoredGraph",
    "VIT",
    "draw_statistics",
    "draw_width",
    "generate_dataset",
    "in_background",
    "network_graph",
    "parameter_count",
    "resnet50_graph",
    "sample_architecture",
    "statistics_table",
]
