"""Data sets: read, split, augmented."""

from gumbax.search.data.augment import Augmentation as Augmentation
from gumbax.search.data.augment import cutout as cutout
from gumbax.search.data.augment import random_crop as random_crop
from gumbax.search.data.augment import random_flip as random_flip
from gumbax.search.data.dataset import Dataset as Dataset
from gumbax.search.data.dataset import Examples as Examples
from gumbax.search.data.dataset import split as split
from gumbax.search.data.dataset import take as take
from gumbax.search.data.datasets import from_arrays as from_arrays
from gumbax.search.data.datasets import load as load
