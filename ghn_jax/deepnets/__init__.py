"""DeepNets-1M: genotypes, graphs from arguments, sampling, dataset files."""

from ghn_jax.deepnets.count import parameter_count as parameter_count
from ghn_jax.deepnets.files.generation import Generated as Generated
from ghn_jax.deepnets.files.generation import GenerationPlan as GenerationPlan
from ghn_jax.deepnets.files.generation import generate_dataset as generate_dataset
from ghn_jax.deepnets.files.reader import DatasetReader as DatasetReader
from ghn_jax.deepnets.files.stored import StoredGraph as StoredGraph
from ghn_jax.deepnets.files.writer import DatasetWriter as DatasetWriter
from ghn_jax.deepnets.genotype import Genotype as Genotype
from ghn_jax.deepnets.genotype import NetworkArgs as NetworkArgs
from ghn_jax.deepnets.graph import network_graph as network_graph
from ghn_jax.deepnets.pictures import draw_statistics as draw_statistics
from ghn_jax.deepnets.predefined import DARTS as DARTS
from ghn_jax.deepnets.predefined import VIT as VIT
from ghn_jax.deepnets.predefined import resnet50_graph as resnet50_graph
from ghn_jax.deepnets.sampler import REJECTIONS as REJECTIONS
from ghn_jax.deepnets.sampler import Architecture as Architecture
from ghn_jax.deepnets.sampler import sample_architecture as sample_architecture
from ghn_jax.deepnets.splits import SPLITS as SPLITS
from ghn_jax.deepnets.statistics import statistics_table as statistics_table
from ghn_jax.deepnets.stream import ArchitectureStream as ArchitectureStream
from ghn_jax.deepnets.stream import MetaBatch as MetaBatch
from ghn_jax.deepnets.stream import in_background as in_background
from ghn_jax.deepnets.widths import draw_width as draw_width
