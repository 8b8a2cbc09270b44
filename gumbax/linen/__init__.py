"""The mixed-op edge as a Flax Linen module."""

from gumbax.linen.mixed_op import ARCH as ARCH
from gumbax.linen.mixed_op import MixedOp as MixedOp
