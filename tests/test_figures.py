"""Pictures: every pixel of a grid is accounted for."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from genjax.evaluators.figures import confusion_figure, curves_figure, grid, side_by_side
from genjax.types import UserError

GREY = 128


def random_images(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_places_every_image(channels):
    images = random_images(5, 3, 4, channels)
    picture = grid(images, columns=2, pad=1, scale=2)
    assert picture.shape == (3 * 7 + 1, 2 * 9 + 1, 3) and picture.dtype == np.uint8
    for i, image in enumerate(images):
        top, left = 1 + (i // 2) * 7, 1 + (i % 2) * 9
        tile = picture[top : top + 6, left : left + 8]
        expected = np.kron(np.broadcast_to(image, (3, 4, 3)), np.ones((2, 2, 1), np.uint8))
        assert np.array_equal(tile, expected)
        picture[top : top + 6, left : left + 8] = GREY
    assert (picture == GREY).all()  # separators and the empty sixth place


@pytest.mark.parametrize(("size", "tile"), [(8, 56), (28, 56), (32, 64), (64, 64)])
def test_small_images_are_enlarged(size, tile):
    assert grid(random_images(1, size, size, 1), pad=0).shape == (tile, tile, 3)


def test_grid_is_about_square_and_never_wider_than_needed():
    images = random_images(10, 64, 64, 3)
    assert grid(images, pad=0).shape == (3 * 64, 4 * 64, 3)
    assert grid(images[:2], columns=8, pad=0).shape == (64, 128, 3)


def test_side_by_side_interleaves_rows():
    originals, reconstructions = random_images(3, 2, 2, 1), 255 - random_images(3, 2, 2, 1)
    picture = side_by_side(originals, reconstructions, columns=2, pad=0, scale=1)
    assert picture.shape == (8, 4, 3)
    rows = picture[..., 0].reshape(4, 2, 2, 2).swapaxes(1, 2)  # [row, column, height, width]
    order = [originals[0], originals[1], reconstructions[0], reconstructions[1], originals[2]]
    assert np.array_equal(rows.reshape(8, 2, 2)[:5], np.stack(order)[..., 0])
    assert np.array_equal(rows[3, 0], reconstructions[2, ..., 0]) and (rows[2:, 1] == GREY).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: grid(np.zeros((2, 4, 4, 3), np.float32)),
        lambda: grid(np.zeros((4, 4, 3), np.uint8)),
        lambda: grid(np.zeros((0, 4, 4, 3), np.uint8)),
        lambda: grid(np.zeros((1, 4, 4, 2), np.uint8)),
        lambda: grid(random_images(1, 4, 4, 1), columns=0),
        lambda: grid(random_images(1, 4, 4, 1), scale=0),
        lambda: side_by_side(random_images(2, 4, 4, 1), random_images(1, 4, 4, 1)),
        lambda: side_by_side(random_images(2, 4, 4, 1), random_images(2, 4, 4, 1), columns=0),
        lambda: confusion_figure(np.zeros((2, 3), int)),
        lambda: confusion_figure(np.zeros((2, 2))),
        lambda: confusion_figure(-np.eye(2, dtype=int)),
        lambda: confusion_figure(np.eye(2, dtype=int), ["one"]),
        lambda: curves_figure(range(3), {}, "x", "y"),
        lambda: curves_figure(range(3), {"short": [1.0, 2.0]}, "x", "y"),
        lambda: curves_figure(range(2), {"endless": [1.0, np.inf]}, "x", "y"),
    ],
)
def test_bad_input_is_one_line(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [1, 2, 10, 20, 21, 200])
def test_confusion_figure_at_every_size(classes):
    matrix = np.random.default_rng(0).integers(0, 10_000, (classes, classes))
    names = [f"$class {k}$ with a long name" for k in range(classes)]
    picture = confusion_figure(matrix, names)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[-1] == 3
    assert 200 < picture.shape[0] <= 1100 and 200 < picture.shape[1] <= 1200


def test_confusion_colour_is_the_share_of_the_row():
    def ink(matrix) -> np.ndarray:
        return confusion_figure(np.array(matrix)).astype(int)

    # A class seen ten times as often has the same colours; counts differ, so compare the columns without one.
    few, many = ink([[1, 0], [0, 1]]), ink([[10, 0], [0, 10]])
    blue = (few[..., 2] - few[..., 0] > 60).sum(), (many[..., 2] - many[..., 0] > 60).sum()
    assert abs(blue[0] - blue[1]) < 0.05 * blue[0]
    empty_row = ink([[0, 0], [0, 1]])
    assert (empty_row[..., 2] - empty_row[..., 0] > 60).sum() < 0.8 * blue[0]


def test_curves_are_drawn_where_their_values_are():
    level = lambda *values: {name: [value] * 3 for name, value in zip("ab", values, strict=True)}  # noqa: E731
    picture = curves_figure(range(3), level(0.0, 1.0), "cycles", "dB").astype(int)
    assert picture.shape == (400, 600, 3)
    blue, orange = (np.argwhere(shade)[:, 0] for shade in (_inked(picture, 2, 0), _inked(picture, 0, 2)))
    assert np.median(orange) < np.median(blue)  # the second curve is above the first
    swapped = curves_figure(range(3), level(1.0, 0.0), "cycles", "dB").astype(int)
    assert np.median(np.argwhere(_inked(swapped, 0, 2))[:, 0]) > np.median(np.argwhere(_inked(swapped, 2, 0))[:, 0])


def _inked(picture: np.ndarray, more: int, less: int) -> np.ndarray:
    return picture[..., more] - picture[..., less] > 60


def test_figures_do_not_touch_pyplot():
    loaded = "matplotlib.pyplot" in sys.modules
    confusion_figure(np.eye(3, dtype=int))
    assert loaded or "matplotlib.pyplot" not in sys.modules
