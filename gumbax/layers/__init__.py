"""Convolution and pooling that are fast on CPU inside control flow."""

from gumbax.layers import convolution as convolution
from gumbax.layers import pooling as pooling
