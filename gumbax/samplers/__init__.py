"""Samples of a choice, relaxed and hard, with their own reverse rules."""

from gumbax.samplers import concrete as concrete
from gumbax.samplers import logistic as logistic
from gumbax.samplers.binary import hard_concrete as hard_concrete
from gumbax.samplers.binary import hard_concrete_gate as hard_concrete_gate
from gumbax.samplers.binary import hard_concrete_penalty as hard_concrete_penalty
from gumbax.samplers.binary import logit_relaxed_bernoulli as logit_relaxed_bernoulli
from gumbax.samplers.binary import relaxed_bernoulli as relaxed_bernoulli
from gumbax.samplers.categorical import categorical as categorical
from gumbax.samplers.draws import Draw as Draw
from gumbax.samplers.draws import draw as draw
from gumbax.samplers.probabilities import categorical_entropy as categorical_entropy
from gumbax.samplers.probabilities import categorical_log_prob as categorical_log_prob
from gumbax.samplers.probabilities import probs_to_logits as probs_to_logits
from gumbax.samplers.relaxation import gumbel_max as gumbel_max
from gumbax.samplers.relaxation import gumbel_softmax as gumbel_softmax
from gumbax.samplers.relaxation import log_gumbel_softmax as log_gumbel_softmax
