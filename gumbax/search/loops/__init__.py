"""What runs for epochs: the search, and training from scratch."""

from gumbax.search.loops.diagnostics import entropy as entropy
from gumbax.search.loops.diagnostics import probabilities as probabilities
from gumbax.search.loops.evaluation import accuracy as accuracy
from gumbax.search.loops.evaluation import predict as predict
from gumbax.search.loops.evaluation import soft_weights as soft_weights
from gumbax.search.loops.fit import fit as fit
from gumbax.search.loops.search import Search as Search
from gumbax.search.loops.search import SearchState as SearchState
from gumbax.search.loops.training import Training as Training
from gumbax.search.loops.training import TrainingOptions as TrainingOptions
from gumbax.search.loops.training import TrainingState as TrainingState
from gumbax.search.loops.training import train as train
from gumbax.search.loops.training import train_and_test as train_and_test
