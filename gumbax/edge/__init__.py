"""The mixed-op edge: all of its operations weighted, or one of them chosen."""

from gumbax.edge import logit_gradients as logit_gradients
from gumbax.edge.cells import scan_edges as scan_edges
from gumbax.edge.choices import Choices as Choices
from gumbax.edge.choices import draw_choices as draw_choices
from gumbax.edge.logit_gradients import exact as exact
from gumbax.edge.logit_gradients import gdas as gdas
from gumbax.edge.logit_gradients import sampled as sampled
from gumbax.edge.logit_gradients import subset as subset
from gumbax.edge.mixed_op import mixed_op as mixed_op
from gumbax.edge.mixed_op import single_path as single_path
