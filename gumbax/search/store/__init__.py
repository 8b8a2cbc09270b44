"""What a run keeps on disk, whole or not at all."""

from gumbax.search.store.checkpoint import Checkpoints as Checkpoints
from gumbax.search.store.errors import SearchError as SearchError
