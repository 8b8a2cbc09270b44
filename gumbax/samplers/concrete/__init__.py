"""Densities of the relaxed distributions, right up to the boundary, and their cdfs.

A relaxed sample of `gumbel_softmax` has the Concrete law on the simplex, its logarithm
from `log_gumbel_softmax` the ExpConcrete law; `relaxed_bernoulli` and `hard_concrete`
have the binary ones. At low temperature samples round to the boundary of the simplex,
where the density is 0, infinite or in between: it is read as the nearest point inside,
as other libraries do. In log space (`exp_log_prob`, `binary_logit_log_prob`) nothing
rounds.
"""

from gumbax.samplers.concrete.densities import binary_log_prob as binary_log_prob
from gumbax.samplers.concrete.densities import (
    binary_logit_log_prob as binary_logit_log_prob,
)
from gumbax.samplers.concrete.densities import exp_log_prob as exp_log_prob
from gumbax.samplers.concrete.densities import hard_log_prob as hard_log_prob
from gumbax.samplers.concrete.densities import log_prob as log_prob
from gumbax.samplers.concrete.distribution import binary_cdf as binary_cdf
from gumbax.samplers.concrete.distribution import binary_log_cdf as binary_log_cdf
from gumbax.samplers.concrete.distribution import hard_cdf as hard_cdf
from gumbax.samplers.concrete.distribution import hard_log_cdf as hard_log_cdf
from gumbax.samplers.concrete.distribution import stretched_cdf as stretched_cdf
from gumbax.samplers.concrete.distribution import stretched_log_cdf as stretched_log_cdf
