"""Architecture search: a space, a method, the search itself, and what it shows."""

from gumbax.search import command as command
from gumbax.search import data as data
from gumbax.search import genotype as genotype
from gumbax.search import loops as loops
from gumbax.search import methods as methods
from gumbax.search import network as network
from gumbax.search import report as report
from gumbax.search import spaces as spaces
from gumbax.search.command import run_search as run_search
from gumbax.search.data import Dataset as Dataset
from gumbax.search.data import Examples as Examples
from gumbax.search.data import from_arrays as from_arrays
from gumbax.search.data import load as load
from gumbax.search.genotype import Genotype as Genotype
from gumbax.search.loops import Search as Search
from gumbax.search.loops import SearchState as SearchState
from gumbax.search.loops import TrainingOptions as TrainingOptions
from gumbax.search.loops import fit as fit
from gumbax.search.methods import METHODS as METHODS
from gumbax.search.methods import Method as Method
from gumbax.search.network import Supernet as Supernet
from gumbax.search.network import derive as derive
from gumbax.search.spaces import SPACES as SPACES
from gumbax.search.store import SearchError as SearchError
