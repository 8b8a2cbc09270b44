"""The Gumbel distribution: its noise, draws under a condition, densities, moments."""

from gumbax.gumbel.law import cdf as cdf
from gumbax.gumbel.law import log_cdf as log_cdf
from gumbax.gumbel.law import log_prob as log_prob
from gumbax.gumbel.law import log_survival_function as log_survival_function
from gumbax.gumbel.law import prob as prob
from gumbax.gumbel.law import quantile as quantile
from gumbax.gumbel.law import survival_function as survival_function
from gumbax.gumbel.moments import entropy as entropy
from gumbax.gumbel.moments import kl_divergence as kl_divergence
from gumbax.gumbel.moments import mean as mean
from gumbax.gumbel.moments import median as median
from gumbax.gumbel.moments import mode as mode
from gumbax.gumbel.moments import stddev as stddev
from gumbax.gumbel.moments import variance as variance
from gumbax.gumbel.sampling import sample as sample
from gumbax.gumbel.sampling import sample_given_index as sample_given_index
from gumbax.gumbel.sampling import sample_truncated as sample_truncated
