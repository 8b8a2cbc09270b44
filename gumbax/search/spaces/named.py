"""The spaces that have a name on the command line."""

from collections.abc import Callable, Mapping

from gumbax.search.spaces.cell_space import CellSpace
from gumbax.search.spaces.chain_space import macro_space, mlp_space
from gumbax.search.spaces.darts_space import DartsSpace
from gumbax.search.spaces.sequence_space import sequence_space
from gumbax.search.spaces.space import Space

NAS_BENCH_201_PRIMITIVES = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)


def nasbench201(channels: int = 16, cells_per_stage: int = 5) -> CellSpace:
    """The space of NAS-Bench-201: 5 operations, 6 edges, 15,625 cells.

    Args:
        channels: of the first stage, 16 as published.
        cells_per_stage: 5 as published, in each of three stages.

    Returns:
        The space. Its convolutions have no bias, in the search either, where those of
        the published code have one in front of the normalisation that removes it.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> nasbench201().num_architectures
        15625

    References:
        Dong, Yang, 2020. https://arxiv.org/abs/2001.00326
    """
    return CellSpace(
        name="nasbench201",
        primitives=NAS_BENCH_201_PRIMITIVES,
        channels=channels,
        cells_per_stage=cells_per_stage,
    )


def small_images() -> CellSpace:
    """Small cells for small images: 7 operations, group normalisation, two stages.

    Returns:
        The space.

    Example:
        >>> small_images().choices["cell"].shape
        (6, 7)

    References:
        gumbax/search/README.md.
    """
    return CellSpace(
        name="small_images",
        primitives=(
            "none",
            "skip_connect",
            "avg_pool_3x3",
            "max_pool_3x3",
            "nor_conv_1x1",
            "nor_conv_3x3",
            "sep_conv_3x3",
        ),
        num_stages=2,
        norm="group",
    )


# Name on the command line -> function that makes the space.
SPACES: Mapping[str, Callable[[], Space]] = {
    "small_images": small_images,
    "nasbench201": nasbench201,
    "darts": DartsSpace,
    "macro": macro_space,
    "mlp": mlp_space,
    "sequences": sequence_space,
}
