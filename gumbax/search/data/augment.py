"""Random changes of images, inside jit: crop, flip, cutout.

Pure functions of (key, images); each image has a draw of its own.

Shapes: images [n, H, W, C]; the result has the same shape and dtype.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gumbax._common import checks


def random_crop(key: jax.Array, images: jax.Array, *, padding: int) -> jax.Array:
    """Moves each image by a uniform offset in -padding..padding on both axes.

    The same as a crop of the old size out of the image in a margin of zeros.

    Args:
        key: scalar key. Consumed.
        images: [n, H, W, C].
        padding: width of the margin in pixels, >= 0. Static.

    Returns:
        Array, [n, H, W, C], of the dtype of `images`.

    Raises:
        TypeError: `key` is not one key, or `padding` is not an integer.
        ValueError: `images` has not four axes, or `padding` is negative.

    Example:
        >>> images = jnp.ones((2, 8, 8, 3))
        >>> random_crop(jax.random.key(0), images, padding=4).shape
        (2, 8, 8, 3)

    References:
        Liu, Simonyan, Yang, 2019 (DARTS: padding 4). https://arxiv.org/abs/1806.09055
    """
    images = _check("random_crop", key, images)
    checks.count("random_crop", "padding", padding, 0, "CIFAR-10 uses 4.")
    return _crop(key, images, padding)


@functools.partial(jax.jit, static_argnums=2)
def _crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    margin = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)

    def cut(padded: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], jnp.zeros_like(offset[0]))
        return jax.lax.dynamic_slice(padded, start, images.shape[1:])

    return jax.vmap(cut)(jnp.pad(images, margin), offsets)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability 1/2.

    Args:
        key: scalar key. Consumed.
        images: [n, H, W, C].

    Returns:
        Array, [n, H, W, C], of the dtype of `images`.

    Raises:
        TypeError: `key` is not one key.
        ValueError: `images` has not four axes.

    Example:
        >>> image = jnp.array([[1.0, 2.0]]).reshape(1, 1, 2, 1)
        >>> flipped = random_flip(jax.random.key(0), image).ravel().tolist()
        >>> flipped in ([1.0, 2.0], [2.0, 1.0])
        True

    References:
        Liu, Simonyan, Yang, 2019 (DARTS). https://arxiv.org/abs/1806.09055
    """
    return _flip(key, _check("random_flip", key, images))


@jax.jit
def _flip(key: jax.Array, images: jax.Array) -> jax.Array:
    flipped = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def cutout(key: jax.Array, images: jax.Array, *, size: int) -> jax.Array:
    """Sets a square at a uniform place to zero in each image.

    The square is centred at a uniform pixel (h, w): rows h - size // 2 to
    h - size // 2 + size - 1 and columns alike, clipped at the border. An even `size`
    gives the squares of the published code; an odd one gives `size`, where that code
    gives size - 1. Zero is the mean colour if the images are normalised before.

    Args:
        key: scalar key. Consumed.
        images: [n, H, W, C].
        size: side of the square in pixels, >= 1. Static.

    Returns:
        Array, [n, H, W, C], of the dtype of `images`.

    Raises:
        TypeError: `key` is not one key, or `size` is not an integer.
        ValueError: `images` has not four axes, or `size` is below 1.

    Example:
        >>> cut = cutout(jax.random.key(0), jnp.ones((1, 8, 8, 1)), size=16)
        >>> cut.sum().item()
        0.0

    References:
        DeVries, Taylor, 2017. https://arxiv.org/abs/1708.04552
    """
    images = _check("cutout", key, images)
    checks.count("cutout", "size", size, 1, "CIFAR-10 uses 16.")
    return _cutout(key, images, size)


@functools.partial(jax.jit, static_argnums=2)
def _cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    n, height, width, _ = images.shape

    def covered(key: jax.Array, length: int) -> jax.Array:
        first = jax.random.randint(key, (n, 1), 0, length) - size // 2
        pixels = jnp.arange(length)[None]
        return (first <= pixels) & (pixels < first + size)

    row_key, column_key = jax.random.split(key)
    rows = covered(row_key, height)[:, :, None, None]
    columns = covered(column_key, width)[:, None, :, None]
    return jnp.where(rows & columns, jnp.zeros_like(images), images)


@dataclass(frozen=True)
class Augmentation:
    """Crop, flip and cutout, in this order; the default changes nothing.

    Attributes:
        crop_padding: `padding` of `random_crop`; 0 for none.
        flip: whether `random_flip` is applied.
        cutout: `size` of `cutout`; 0 for none.

    Raises:
        TypeError: a field has another type.
        ValueError: a number is negative.

    Example:
        >>> augment = Augmentation(crop_padding=4, flip=True, cutout=16)
        >>> augment(jax.random.key(0), jnp.ones((2, 32, 32, 3))).shape
        (2, 32, 32, 3)
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for argument in ("crop_padding", "cutout"):
            value = getattr(self, argument)
            checks.count("Augmentation", argument, value, 0, "0 switches it off.")
        if not isinstance(self.flip, bool):
            cure = "Images are mirrored with probability 1/2, or not at all."
            raise TypeError(
                checks.message(
                    "Augmentation", "flip", "be True or False", repr(self.flip), cure
                )
            )

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Augments a batch.

        Args:
            key: scalar key. Consumed.
            images: [n, H, W, C]; of any shape where everything is switched off.

        Returns:
            Array of the shape and dtype of `images`.
        """
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        if self.crop_padding:
            images = random_crop(crop_key, images, padding=self.crop_padding)
        if self.flip:
            images = random_flip(flip_key, images)
        if self.cutout:
            images = cutout(cutout_key, images, size=self.cutout)
        return images


def _check(function: str, key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images as an array, if they are a batch of images."""
    checks.scalar_key(function, key)
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            checks.message(
                function,
                "images",
                "have the axes [n, H, W, C]",
                f"shape {images.shape}",
                "Features are not images: leave augmentation off.",
            )
        )
    return images
