"""Search methods: records of functions, and how their logits learn."""

from gumbax.search.methods.bilevel import finite_difference as finite_difference
from gumbax.search.methods.bilevel import first_order as first_order
from gumbax.search.methods.bilevel import single_level as single_level
from gumbax.search.methods.bilevel import unrolled as unrolled
from gumbax.search.methods.derive_rules import RULES as RULES
from gumbax.search.methods.derive_rules import argmax_per_edge as argmax_per_edge
from gumbax.search.methods.derive_rules import threshold as threshold
from gumbax.search.methods.derive_rules import top_two_edges as top_two_edges
from gumbax.search.methods.methods import METHODS as METHODS
from gumbax.search.methods.methods import Method as Method
from gumbax.search.methods.methods import Preset as Preset
from gumbax.search.methods.methods import path as path
from gumbax.search.methods.methods import relaxed as relaxed
from gumbax.search.methods.methods import softmax as softmax
from gumbax.search.methods.methods import straight_through as straight_through
from gumbax.search.methods.methods import uniform as uniform
from gumbax.search.methods.optimizers import AdamW as AdamW
from gumbax.search.methods.optimizers import ArchAdam as ArchAdam
from gumbax.search.methods.optimizers import Sgd as Sgd
