"""Differentiable discrete choice for JAX."""

from gumbax import concrete as concrete
from gumbax import convolution as convolution
from gumbax import gumbel as gumbel
from gumbax import logit_gradients as logit_gradients
from gumbax import pooling as pooling
from gumbax import schedules as schedules
from gumbax._categorical import categorical as categorical
from gumbax._relaxation import gumbel_max as gumbel_max
from gumbax._relaxation import gumbel_softmax as gumbel_softmax
from gumbax._relaxation import log_gumbel_softmax as log_gumbel_softmax
from gumbax.binary import hard_concrete as hard_concrete
from gumbax.binary import hard_concrete_gate as hard_concrete_gate
from gumbax.binary import hard_concrete_penalty as hard_concrete_penalty
from gumbax.binary import logit_relaxed_bernoulli as logit_relaxed_bernoulli
from gumbax.binary import relaxed_bernoulli as relaxed_bernoulli
from gumbax.cells import scan_edges as scan_edges
from gumbax.choices import Choices as Choices
from gumbax.choices import draw_choices as draw_choices
from gumbax.logit_gradients import exact as exact
from gumbax.logit_gradients import gdas as gdas
from gumbax.logit_gradients import sampled as sampled
from gumbax.logit_gradients import subset as subset
from gumbax.mixed_op import mixed_op as mixed_op
from gumbax.mixed_op import single_path as single_path

__version__ = "0.1.0"
