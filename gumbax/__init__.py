"""Differentiable discrete choice for JAX."""

from gumbax import gumbel as gumbel
from gumbax._relaxation import gumbel_max as gumbel_max
from gumbax._relaxation import gumbel_softmax as gumbel_softmax

__version__ = "0.1.0"
