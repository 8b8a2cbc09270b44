"""The mixed-op edge as a Flax NNX module."""

from gumbax.nnx.mixed_op import ArchParam as ArchParam
from gumbax.nnx.mixed_op import MixedOp as MixedOp
from gumbax.nnx.mixed_op import pure_branches as pure_branches
