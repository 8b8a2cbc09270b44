"""Architectures: kept edges, their texts, their numbers."""

from gumbax.search.genotype.genotype import Edge as Edge
from gumbax.search.genotype.genotype import Genotype as Genotype
from gumbax.search.genotype.genotype import architectures as architectures
from gumbax.search.genotype.genotype import (
    constant_architectures as constant_architectures,
)
