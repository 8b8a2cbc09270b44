"""What can be chosen, and the networks around it."""

from gumbax.search.spaces.cell_space import CellSpace as CellSpace
from gumbax.search.spaces.chain_space import MACRO_PRIMITIVES as MACRO_PRIMITIVES
from gumbax.search.spaces.chain_space import MLP_PRIMITIVES as MLP_PRIMITIVES
from gumbax.search.spaces.chain_space import ChainSpace as ChainSpace
from gumbax.search.spaces.chain_space import macro_space as macro_space
from gumbax.search.spaces.chain_space import mlp_space as mlp_space
from gumbax.search.spaces.chain_space import skip as skip
from gumbax.search.spaces.darts_space import DARTS_PRIMITIVES as DARTS_PRIMITIVES
from gumbax.search.spaces.darts_space import DartsSpace as DartsSpace
from gumbax.search.spaces.edges import Context as Context
from gumbax.search.spaces.edges import Operation as Operation
from gumbax.search.spaces.layers import Layers as Layers
from gumbax.search.spaces.layers import fan_in_uniform as fan_in_uniform
from gumbax.search.spaces.named import SPACES as SPACES
from gumbax.search.spaces.named import nasbench201 as nasbench201
from gumbax.search.spaces.named import small_images as small_images
from gumbax.search.spaces.primitives import PRIMITIVES as PRIMITIVES
from gumbax.search.spaces.sequence_space import (
    SEQUENCE_PRIMITIVES as SEQUENCE_PRIMITIVES,
)
from gumbax.search.spaces.sequence_space import sequence_space as sequence_space
from gumbax.search.spaces.space import Choice as Choice
from gumbax.search.spaces.space import Primitive as Primitive
from gumbax.search.spaces.space import Space as Space
