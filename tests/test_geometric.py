"""The augmentation that a network is told of: against NumPy and SciPy, from the labels alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from genjax import rng
from genjax.data.geometric import LABELS, draw, geometric, labels_of, source_map, warp

transform = jax.jit(geometric)
NAMES = ("flip_x", "flip_y", "scale", "angle", "axis", "stretch", "shift_x", "shift_y")


def images_of(*shape: int) -> jax.Array:
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    images[..., :2, :2, :] = -0.0  # whose sign arithmetic would lose
    return jnp.asarray(images)


def change_of(**values: float) -> dict[str, jax.Array]:
    return {name: jnp.float32(values.get(name, 0.0)) for name in NAMES}


def warped(image, **values: float) -> np.ndarray:
    return np.asarray(warp(image, *source_map(change_of(**values), *image.shape[:2])))


def bits(array) -> np.ndarray:
    return np.asarray(array).view(np.uint32)


def moved(image, right: int, down: int) -> np.ndarray:
    """The image moved by whole pixels, reflected where it leaves a gap."""
    image = np.asarray(image)
    height, width, _ = image.shape
    padded = np.pad(image, ((max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0)), (0, 0)), mode="reflect")
    top, left = max(-down, 0), max(-right, 0)
    return padded[top : top + height, left : left + width]


def forward(label: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The change that a label tells of, as matrix and translation of (right, down) from the middle, in float64."""
    flip_x, flip_y, scale, cosine, sine, along_x, along_y, shift_x, shift_y = np.asarray(label, np.float64)
    turn = lambda c, s: np.array([[c, s], [-s, c]])  # noqa: E731 (counter-clockwise where y points down)
    strength, half = np.hypot(along_x, along_y), np.arctan2(along_y, along_x) / 2
    axis = turn(np.cos(half), np.sin(half))
    stretch = axis @ np.diag(2.0 ** (0.2 * strength * np.array([1, -1]))) @ axis.T
    flips = np.diag([1 - 2 * flip_x, 1 - 2 * flip_y])
    matrix = stretch @ turn(cosine + 1, sine) @ (2.0 ** (0.2 * scale) * flips)
    return matrix, np.array([shift_x * width / 8, shift_y * height / 8])


def reference(image, label: np.ndarray) -> np.ndarray:
    """The change that a label tells of, by SciPy."""
    image = np.asarray(image, np.float64)
    height, width, channels = image.shape
    matrix, shift = forward(label, height, width)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    source = (grid - middle - shift) @ np.linalg.inv(matrix).T + middle
    at = [source[..., 1], source[..., 0]]
    return np.stack([ndimage.map_coordinates(image[..., c], at, order=1, mode="mirror") for c in range(channels)], -1)


def check(function, probability: float = 1.0) -> None:
    """The images are what the labels say."""
    for shape in ((24, 8, 8, 1), (24, 8, 12, 3)):
        images = images_of(*shape)
        changed, labels = map(np.asarray, function(rng.root(3), images, probability))
        assert changed.shape == shape and changed.dtype == labels.dtype == np.float32 and labels.shape == (24, LABELS)
        for image, after, label in zip(np.asarray(images), changed, labels, strict=True):
            np.testing.assert_allclose(after, reference(image, label), atol=1e-4)


def test_images_are_what_the_labels_say():
    check(transform)
    check(transform, 0.3)


def label_with(position: int, function):
    def broken(key, images, probability):
        changed, labels = transform(key, images, probability)
        return changed, labels.at[:, position].set(function(labels[:, position]))

    return broken


def warped_with(function):
    """``geometric`` with another warp."""

    def broken(key, images, probability):
        keys = rng.example_keys(key, jnp.arange(len(images)))
        changes = jax.vmap(draw, (0, None))(keys, probability)
        one = lambda image, change: function(image, *source_map(change, *image.shape[:2]))  # noqa: E731
        return jax.vmap(one)(images, changes), jax.vmap(labels_of)(changes)

    return jax.jit(broken)


def test_the_check_accepts_the_parts_put_together():
    check(warped_with(warp))


@pytest.mark.parametrize(
    "broken",
    [
        label_with(2, jnp.negative),
        label_with(4, jnp.negative),
        label_with(6, jnp.negative),
        label_with(7, jnp.zeros_like),
        warped_with(lambda image, matrix, shift: warp(image, matrix.T, shift)),
        warped_with(lambda image, matrix, shift: warp(image, matrix, -shift)),
        warped_with(lambda image, matrix, shift: warp(image, matrix, shift + 0.5)),
        warped_with(lambda image, matrix, shift: warp(image, matrix, shift[::-1])),
        warped_with(lambda image, matrix, shift: warp(jnp.flip(image, 0), matrix, shift)),
    ],
    ids=["scale", "angle", "axis", "shift", "transposed", "forwards", "half a pixel", "swapped", "upside down"],
)
def test_the_check_rejects(broken):
    with pytest.raises(AssertionError):
        check(broken)


def test_nothing_drawn_is_the_identity_bit_for_bit():
    images = images_of(64, 8, 12, 3)
    changed, labels = transform(rng.root(0), images, 0.0)
    flipped = np.asarray(labels[:, 0]) == 1
    assert 16 < flipped.sum() < 48  # flipping left to right is always among the changes
    np.testing.assert_array_equal(np.asarray(labels), flipped[:, None] * np.eye(LABELS, dtype=np.float32)[0])
    np.testing.assert_array_equal(bits(changed[~flipped]), bits(images[~flipped]))
    np.testing.assert_array_equal(np.asarray(changed[flipped]), np.asarray(images[flipped, :, ::-1]))


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 12, 3), (1, 5, 1)])
def test_flips_and_whole_pixels_are_exact(shape):
    image = images_of(*shape)
    height, width, _ = shape
    plain = np.asarray(image)
    np.testing.assert_array_equal(warped(image), plain)
    np.testing.assert_array_equal(warped(image, flip_x=1), plain[:, ::-1])
    np.testing.assert_array_equal(warped(image, flip_y=1), plain[::-1])
    np.testing.assert_array_equal(warped(image, flip_x=1, flip_y=1), plain[::-1, ::-1])
    half_turn = warp(image, -jnp.eye(2), jnp.zeros(2))
    np.testing.assert_array_equal(half_turn, plain[::-1, ::-1])
    for right, down in ((1, 0), (0, 2), (-3, 1), (4, -2)):
        down = down if height > 2 else 0
        found = warp(image, jnp.eye(2), jnp.array([right, down], jnp.float32))
        np.testing.assert_array_equal(found, moved(image, right, down))
        # 8 pixels in a shift of one width or height: exact where those are powers of two.
        if width == height == 8:
            np.testing.assert_array_equal(warped(image, shift_x=right, shift_y=down), moved(image, right, down))


def test_quarter_turns_and_magnification():
    image = images_of(8, 8, 3)
    plain = np.asarray(image)
    # Counter-clockwise, as NumPy's: a pixel of the new image comes from the clockwise side.
    exact = warp(image, jnp.array([[0.0, -1.0], [1.0, 0.0]]), jnp.zeros(2))
    np.testing.assert_array_equal(exact, np.rot90(plain))
    for turns in (1, 2, 3):
        np.testing.assert_allclose(warped(image, angle=turns * np.pi / 2), np.rot90(plain, turns), atol=1e-5)
    larger = warped(image, scale=5.0)  # 2^(0.2 * 5): twice the size
    middle = plain[3:5, 3:5]
    np.testing.assert_allclose(larger[3:5, 3:5].mean((0, 1)), middle.mean((0, 1)), atol=1e-6)
    corner = 0.75**2 * plain[3, 3] + 0.75 * 0.25 * (plain[3, 4] + plain[4, 3]) + 0.25**2 * plain[4, 4]
    np.testing.assert_allclose(larger[3, 3], corner, atol=1e-6)
    wider = warped(jnp.ones((8, 8, 1)), stretch=2.0, axis=0.3)
    np.testing.assert_allclose(wider, 1.0, atol=1e-6)


def test_an_image_depends_on_its_own_position_in_the_batch_alone():
    images = images_of(16, 8, 8, 1)
    whole = transform(rng.root(7), images, 0.5)
    other = transform(rng.root(7), images.at[3:].set(0.25), 0.5)
    part = transform(rng.root(7), images[:3], 0.5)
    for a, b, c in zip(whole, other, part, strict=True):
        np.testing.assert_array_equal(a[:3], c)
        np.testing.assert_array_equal(a[:3], b[:3])
    assert len({label.tobytes() for label in np.asarray(transform(rng.root(7), images, 1.0)[1])}) == 16
    assert not np.array_equal(transform(rng.root(8), images, 0.5)[1], whole[1])


def check_frequencies(draw, probability: float) -> None:
    count = 8192
    changes = jax.vmap(draw, (0, None))(rng.example_keys(rng.root(1), jnp.arange(count)), probability)
    values = {name: np.asarray(changes[name], np.float64) for name in NAMES}
    near = lambda mean, expected: abs(mean - expected) < 4.5 * np.sqrt(max(expected, 1e-9) / count)  # noqa: E731
    assert near(values["flip_x"].mean(), 0.5) and near(values["flip_y"].mean(), probability / 2)
    drawn = {name: value != 0 for name, value in values.items()}
    for name in ("scale", "angle", "stretch", "shift_x"):
        assert near(drawn[name].mean(), probability), name
    assert (drawn["shift_x"] == drawn["shift_y"]).all() and (drawn["stretch"] == drawn["axis"]).all()
    for name in ("scale", "stretch", "shift_x", "shift_y"):
        assert abs(values[name][drawn[name]].std() - 1) < 0.1 and abs(values[name].mean()) < 0.05
    for name in ("angle", "axis"):
        assert abs(values[name][drawn[name]].std() - np.pi / np.sqrt(3)) < 0.1 and np.abs(values[name]).max() <= np.pi
    table = np.corrcoef([drawn[name] for name in ("scale", "angle", "stretch", "shift_x")] + [values["flip_x"]])
    assert np.abs(table - np.eye(5)).max() < 0.06  # independent of each other


def test_changes_are_drawn_with_their_probability_and_independently():
    check_frequencies(draw, 0.25)
    check_frequencies(draw, 0.7)


@pytest.mark.parametrize(
    "broken",
    [
        lambda key, p: draw(key, p / 2),
        lambda key, p: jax.tree.map(lambda x: x * jax.random.bernoulli(key, p), draw(key, 1.0)),  # all or nothing
        lambda key, p: {**draw(key, p), "angle": draw(key, p)["scale"]},
        lambda key, p: {**draw(key, p), "flip_x": draw(key, p)["flip_y"]},
    ],
    ids=["half", "together", "angle", "flip"],
)
def test_the_frequencies_reject(broken):
    with pytest.raises(AssertionError):
        check_frequencies(broken, 0.25)
