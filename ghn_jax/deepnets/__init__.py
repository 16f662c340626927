"""DeepNets-1M: genotypes, graphs from arguments, sampling, dataset files."""

from ghn_jax.deepnets.genotype import Genotype as Genotype
from ghn_jax.deepnets.genotype import NetworkArgs as NetworkArgs
