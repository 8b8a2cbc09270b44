"""From a key to words to noise: the words of every backend, floats to rounding."""

from gumbax._noise.logarithm import log1p_unit as log1p_unit
from gumbax._noise.noise import computation_dtype as computation_dtype
from gumbax._noise.noise import defined as defined
from gumbax._noise.noise import expand as expand
from gumbax._noise.noise import gumbel_from_words as gumbel_from_words
from gumbax._noise.noise import logistic_from_words as logistic_from_words
from gumbax._noise.noise import positive as positive
from gumbax._noise.noise import standard as standard
from gumbax._noise.noise import standard_logistic as standard_logistic
