"""The supernet, and the networks that are derived from it."""

from gumbax.search.network.costs import CostTable as CostTable
from gumbax.search.network.costs import GenotypeCost as GenotypeCost
from gumbax.search.network.costs import OperationCost as OperationCost
from gumbax.search.network.counting import Cost as Cost
from gumbax.search.network.counting import multiply_adds as multiply_adds
from gumbax.search.network.counting import weights as weights
from gumbax.search.network.derivation import derive as derive
from gumbax.search.network.derivation import new_network as new_network
from gumbax.search.network.derivation import num_weights as num_weights
from gumbax.search.network.derivation import recalibrate as recalibrate
from gumbax.search.network.export import export as export
from gumbax.search.network.export import with_stock_layers as with_stock_layers
from gumbax.search.network.latency import Latency as Latency
from gumbax.search.network.pricing import cost_tables as cost_tables
from gumbax.search.network.supernet import Network as Network
from gumbax.search.network.supernet import Supernet as Supernet
from gumbax.search.network.supernet import dense_operation as dense_operation
from gumbax.search.network.supernet import path_operation as path_operation
