"""Differentiable discrete choice for JAX."""

from gumbax import gumbel as gumbel
from gumbax import schedules as schedules
from gumbax._common.version import __version__ as __version__
from gumbax.edge import Choices as Choices
from gumbax.edge import draw_choices as draw_choices
from gumbax.edge import exact as exact
from gumbax.edge import gdas as gdas
from gumbax.edge import logit_gradients as logit_gradients
from gumbax.edge import mixed_op as mixed_op
from gumbax.edge import sampled as sampled
from gumbax.edge import scan_edges as scan_edges
from gumbax.edge import single_path as single_path
from gumbax.edge import subset as subset
from gumbax.layers import convolution as convolution
from gumbax.layers import pooling as pooling
from gumbax.samplers import categorical as categorical
from gumbax.samplers import concrete as concrete
from gumbax.samplers import gumbel_max as gumbel_max
from gumbax.samplers import gumbel_softmax as gumbel_softmax
from gumbax.samplers import hard_concrete as hard_concrete
from gumbax.samplers import hard_concrete_gate as hard_concrete_gate
from gumbax.samplers import hard_concrete_penalty as hard_concrete_penalty
from gumbax.samplers import log_gumbel_softmax as log_gumbel_softmax
from gumbax.samplers import logit_relaxed_bernoulli as logit_relaxed_bernoulli
from gumbax.samplers import relaxed_bernoulli as relaxed_bernoulli
