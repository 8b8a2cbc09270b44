import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbax.search.data.augment import Augmentation, cutout, random_crop, random_flip
from tests.helpers import assert_law

NUM_IMAGES = 4096
CHANGES = [
    functools.partial(random_crop, padding=2),
    random_flip,
    functools.partial(cutout, size=3),
    Augmentation(crop_padding=2, flip=True, cutout=3),
]


@pytest.fixture
def images():
    """Every value occurs once, and none is 0."""
    shape = (6, 5, 7, 2)
    return 1 + jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)


def marked(height, width):
    """Images that tell the place of every pixel: 1 + row * width + column."""
    pixels = 1 + jnp.arange(height * width, dtype=jnp.float32)
    return jnp.broadcast_to(
        pixels.reshape(1, height, width, 1), (NUM_IMAGES, height, width, 1)
    )


def shifted(image, down, right):
    """What a crop shows: the pixel (h, w) comes from (h + down, w + right)."""
    height, width = image.shape[:2]
    out = np.zeros_like(image)
    for h in range(height):
        for w in range(width):
            if 0 <= h + down < height and 0 <= w + right < width:
                out[h, w] = image[h + down, w + right]
    return out


def test_crop_moves_every_pixel_alike(images):
    cropped = np.asarray(random_crop(jax.random.key(0), images, padding=2))
    offsets = [(d, r) for d in range(-2, 3) for r in range(-2, 3)]
    for image, found in zip(np.asarray(images), cropped, strict=True):
        matches = [o for o in offsets if (shifted(image, *o) == found).all()]
        assert len(matches) == 1


def test_crop_offsets_are_uniform_and_independent():
    height, width, padding = 5, 7, 2
    cropped = random_crop(jax.random.key(1), marked(height, width), padding=padding)
    # The centre is never in the margin: its value is the offset.
    value = np.asarray(cropped[:, height // 2, width // 2, 0]).astype(int) - 1
    down = value // width - height // 2 + padding
    right = value % width - width // 2 + padding
    side = 2 * padding + 1
    counts = np.bincount(down * side + right, minlength=side**2)
    probs = np.full(side**2, 1 / side**2)
    never_left = np.where(np.arange(side**2) % side == 0, 0.0, 1.0)
    assert_law(counts, probs, against=never_left / never_left.sum())


def test_crop_without_margin_changes_nothing(images):
    cropped = random_crop(jax.random.key(0), images, padding=0)
    np.testing.assert_array_equal(cropped, images)


def test_flip_mirrors_whole_images_half_of_the_time():
    images = marked(2, 3)
    flipped = random_flip(jax.random.key(2), images)
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    # Neighbours are independent: pairs of images have four equal outcomes.
    pairs = np.asarray(mirrored).reshape(-1, 2) @ np.array([2, 1])
    counts = np.bincount(pairs, minlength=4)
    assert_law(counts, np.full(4, 0.25), against=np.array([0.3, 0.2, 0.2, 0.3]))


def published_mask(height, width, size, row, column):
    """DARTS, `utils.Cutout`."""
    mask = np.ones((height, width), np.float32)
    y1, y2 = np.clip([row - size // 2, row + size // 2], 0, height)
    x1, x2 = np.clip([column - size // 2, column + size // 2], 0, width)
    mask[y1:y2, x1:x2] = 0
    return mask


def test_cutout_squares_are_the_published_ones_with_uniform_centres():
    height, width, size = 4, 6, 4
    cut = np.asarray(cutout(jax.random.key(3), marked(height, width), size=size))
    masks = [
        published_mask(height, width, size, row, column)
        for row in range(height)
        for column in range(width)
    ]
    index = {mask.tobytes(): i for i, mask in enumerate(masks)}
    assert len(index) == len(masks)
    found = [index[mask.tobytes()] for mask in (cut[..., 0] > 0).astype(np.float32)]
    pixels = np.asarray(marked(height, width))
    np.testing.assert_array_equal(cut, np.where(cut > 0, pixels, 0))
    counts = np.bincount(found, minlength=len(masks))
    probs = np.full(len(masks), 1 / len(masks))
    never_first = np.where(np.arange(len(masks)) < width, 0.0, 1.0)
    assert_law(counts, probs, against=never_first / never_first.sum())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_cutout_has_its_size_away_from_the_border(size):
    cut = cutout(jax.random.key(4), jnp.ones((NUM_IMAGES, 6, 6, 2)), size=size)
    areas = np.asarray((cut == 0).all(axis=-1).sum(axis=(1, 2)))
    assert areas.max() == size**2
    assert areas.min() > 0


def test_cutout_larger_than_the_image_leaves_nothing():
    cut = cutout(jax.random.key(0), jnp.ones((5, 4, 4, 1)), size=8)
    assert not cut.any()


@pytest.mark.parametrize("change", CHANGES)
def test_scan_and_eager_agree_and_the_key_decides(change, images):
    keys = jax.random.split(jax.random.key(5), 2)
    eager = [np.asarray(change(key, images)) for key in keys]
    _, scanned = jax.lax.scan(lambda _, key: (None, change(key, images)), None, keys)
    np.testing.assert_array_equal(scanned, eager)
    assert (eager[0] != eager[1]).any()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.uint8])
def test_shape_and_dtype_are_kept(change, dtype, strict_promotion):
    out = change(jax.random.key(0), jnp.ones((3, 5, 7, 2), dtype))
    assert (out.shape, out.dtype) == ((3, 5, 7, 2), dtype)


@pytest.mark.parametrize("change", CHANGES[:3])
def test_old_keys_and_empty_batches_are_taken(change):
    assert change(jax.random.PRNGKey(0), jnp.ones((0, 5, 7, 2))).shape[0] == 0


def test_augmentation_is_off_by_default_and_hashable():
    features = jnp.ones((3, 5))
    assert Augmentation()(jax.random.key(0), features) is features
    assert hash(Augmentation(flip=True)) == hash(Augmentation(flip=True))


def test_augmentation_applies_its_parts_in_order(images):
    keys = jax.random.split(jax.random.key(6), 3)
    expected = random_crop(keys[0], images, padding=1)
    expected = cutout(keys[2], random_flip(keys[1], expected), size=2)
    found = Augmentation(crop_padding=1, flip=True, cutout=2)(jax.random.key(6), images)
    np.testing.assert_array_equal(found, expected)


KEY = jax.random.key(0)
IMAGES = jnp.ones((2, 4, 4, 1))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: cutout(KEY, IMAGES, size=0), ValueError, "`size` must be at least 1"),
        (lambda: cutout(KEY, IMAGES, size=1.5), TypeError, "`size` must be an integer"),
        (lambda: random_crop(KEY, IMAGES, padding=-1), ValueError, "be at least 0"),
        (
            lambda: random_flip(KEY, IMAGES[0]),
            ValueError,
            "`random_flip`: `images` must have the axes [n, H, W, C], got shape (4, 4",
        ),
        (lambda: random_flip(3, IMAGES), TypeError, "`key` must be one PRNG key"),
        (lambda: Augmentation(cutout=-1), ValueError, "`cutout` must be at least 0"),
        (
            lambda: Augmentation(crop_padding=True),
            TypeError,
            "`Augmentation`: `crop_padding` must be an integer, got True",
        ),
        (lambda: Augmentation(flip=1), TypeError, "`flip` must be True or False"),
    ],
)
def test_bad_arguments_are_named(call, error, match):
    with pytest.raises(error, match=re.escape(match)):
        call()
