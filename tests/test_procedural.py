"""Computed shapes: what an image shows is what its factors say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from genjax.data import procedural_shapes, sources
from genjax.data.base import ArraySource, Factors, in_memory
from genjax.data.procedural import shapes
from genjax.types import UserError
from tests.cli.commands import VAE, one_line, run_many, train_arguments

SIZES = {"shape": 3, "scale": 4, "orientation": 8, "position_x": 5, "position_y": 5}


def grid(split="all", size=48, **options):
    """Every combination of a small grid."""
    given = {"scales": 4, "orientations": 8, "positions": 5, **options}
    return shapes(split, size=size, **given)


def drawn(source):
    """All images float64 ``[N, H, W]`` in [0, 1], and the values of each factor."""
    images = source.gather(np.arange(len(source)))["image"][..., 0] / 255.0
    return images, dict(zip(source.factors.names, source.factors.values.T, strict=True))


# Every combination once.


def test_every_combination_is_there_once_and_its_number_has_the_factors_as_digits():
    source = grid()
    assert dict(zip(source.factors.names, source.factors.sizes, strict=True)) == SIZES
    assert sorted(source.grid) == list(range(3 * 4 * 8 * 5 * 5))
    number = np.zeros(len(source), np.int64)
    for size, digit in zip(source.factors.sizes, source.factors.values.T, strict=True):
        number = number * size + digit
    np.testing.assert_array_equal(number, source.grid)


def test_splits_share_nothing_are_the_same_anew_and_leave_nothing_out():
    train, test, everything = (grid(part, test_fraction=0.3).grid for part in ("train", "test", "all"))
    assert len(test) == 720 and not set(train) & set(test) and sorted({*train, *test}) == sorted(everything)
    np.testing.assert_array_equal(test, grid("test", size=16, test_fraction=0.3).grid)
    np.testing.assert_array_equal(test[:10], grid("test[:10]", test_fraction=0.3).grid)
    assert len(grid("train", test_fraction=0.0)) == 2400


@pytest.mark.parametrize("split", ["train[:5%]", "test[:100]", "all[-100:]"])
def test_a_part_has_all_values_of_each_factor(split):
    factors = grid(split).factors
    for column, size in zip(factors.values.T, factors.sizes, strict=True):
        assert np.bincount(column, minlength=size).min() > 0


def test_one_combination_is_one_image_in_any_company():
    source = grid()
    index = np.array([7, 1999, 7, 0, 12])
    together = source.gather(index)
    assert together["image"].shape == (5, 48, 48, 1) and together["image"].dtype == np.uint8
    for row, one in enumerate(index):
        np.testing.assert_array_equal(source.gather(np.array([one]))["image"][0], together["image"][row])
    np.testing.assert_array_equal(together["label"], source.factors.values[index, 0])
    # The same combination of the other split, in the order of that.
    part = grid("train")
    where = np.flatnonzero(source.grid == part.grid[3])
    np.testing.assert_array_equal(source.gather(where)["image"], part.gather(np.array([3]))["image"])


def test_combinations_that_look_different_are_different_images():
    """All but squares turned by a quarter and ellipses turned by half a turn."""
    images, _ = drawn(grid())
    seen = len(np.unique(images.reshape(len(images), -1), axis=0))
    assert seen == 4 * 25 * (8 // 4 + 8 // 2 + 8)


def test_factors_stay_with_the_images_in_memory():
    source = grid("test")
    loaded = in_memory(source, 10**9)
    assert isinstance(loaded, ArraySource)
    assert loaded.factors is source.factors and in_memory(sources.digits("test"), 10**9).factors is None
    np.testing.assert_array_equal(loaded.gather(np.arange(9))["image"], source.gather(np.arange(9))["image"])
    assert dataclasses.replace(loaded, name="other").factors is source.factors
    with pytest.raises(ValueError, match="factors for"):
        dataclasses.replace(loaded, images=loaded.images[:-1])


@pytest.mark.parametrize(
    ("sizes", "values"),
    [((2, 2), np.zeros((3, 2))), ((2,), np.zeros((3, 2), np.int32)), ((2, 2), np.full((3, 2), 2, np.int32))],
)
def test_factors_that_contradict_themselves(sizes, values):
    with pytest.raises(ValueError):
        Factors(("a", "b"), sizes, values)


# What the images show.


def check_position(images, value, size, tolerance=0.1):
    middles = np.arange(size) + 0.5
    mass = images.sum((1, 2))
    for name, axis in (("position_x", 1), ("position_y", 2)):
        found = (images.sum(axis) @ middles) / mass
        expected = size * np.linspace(0.25, 0.75, 5)[value[name]]
        assert np.abs(found - expected).max() < tolerance


def check_scale(images, value, size):
    """The same area for all shapes, which is the square of the scale."""
    area = np.square(size * np.linspace(0.15, 0.3, 4)[value["scale"]])
    assert np.abs(images.sum((1, 2)) / area - 1.0).max() < 0.04


def moments(images):
    """The angle in radians of the longer axis, counter-clockwise from the right, and how much longer it is."""
    height, width = images.shape[1:]
    down, right = np.mgrid[:height, :width]
    mass = images.sum((1, 2))

    def mean(of):
        return (images * of).sum((1, 2)) / mass

    x, y = mean(right), mean(down)
    xx, yy, xy = mean(right**2) - x**2, mean(down**2) - y**2, mean(right * down) - x * y
    return 0.5 * np.arctan2(-2.0 * xy, xx - yy), np.sqrt(np.square(xx - yy) + 4.0 * np.square(xy)) / (xx + yy)


def check_orientation(images, value):
    """An ellipse's longer axis has the angle; a square's second moments are those of a disc."""
    ellipse = value["shape"] == 1
    angle, longer = moments(images)
    difference = angle[ellipse] - 2.0 * np.pi * value["orientation"][ellipse] / 8
    assert np.abs(np.sin(difference)).max() < 0.02
    assert np.abs(longer[ellipse] - 0.6).max() < 0.05  # (2^2 - 1) / (2^2 + 1), with soft edges
    assert longer[value["shape"] == 0].max() < 1e-2


def check(images, value, size=48):
    check_position(images, value, size)
    check_scale(images, value, size)
    check_orientation(images, value)


def test_images_show_their_factors():
    check(*drawn(grid()))


@pytest.mark.parametrize(
    "broken",
    [
        lambda images, value: (images.swapaxes(1, 2), value),
        lambda images, value: (images[:, ::-1], value),
        lambda images, value: (images, {**value, "scale": value["scale"][::-1]}),
        lambda images, value: (images, {**value, "orientation": -value["orientation"] % 8}),
        lambda images, value: (np.roll(images, 1, axis=2), value),
        lambda images, value: ((images > 0).astype(float), value),
    ],
    ids=["exchanged axes", "upside down", "other scales", "clockwise", "a pixel further", "hard edges"],
)
def test_the_check_of_images_rejects(broken):
    with pytest.raises(AssertionError):
        check(*broken(*drawn(grid())))


def test_a_turn_by_a_symmetry_is_the_same_image():
    source = grid()
    images, _ = drawn(source)
    order = np.argsort(source.grid)
    images = images[order].reshape(3, 4, 8, 25, 48, 48)
    square, ellipse, heart = images
    np.testing.assert_array_equal(square, np.roll(square, 2, axis=1))
    np.testing.assert_array_equal(ellipse, np.roll(ellipse, 4, axis=1))
    assert not (ellipse == np.roll(ellipse, 2, axis=1)).all((-1, -2)).any()
    assert not any((heart == np.roll(heart, k, axis=1)).all((-1, -2)).any() for k in range(1, 8))
    # In the middle of the image a quarter turn of the shape is one of the image.
    middle = heart[:, :, 12]
    np.testing.assert_array_equal(np.roll(middle, -2, axis=1), np.rot90(middle, axes=(2, 3)))
    # Upright it is symmetric, and its notch is above.
    np.testing.assert_array_equal(middle[:, 0], middle[:, 0, :, ::-1])
    column = middle[-1, 0, :, 23]
    assert np.flatnonzero(column)[0] > np.flatnonzero(middle[-1, 0].max(axis=1))[0]


@pytest.mark.parametrize("size", [16, 17, 64])
def test_no_shape_is_cut_at_the_border(size):
    images, value = drawn(grid(size=size, orientations=7))
    # What is cut off would draw the centre of mass inwards.
    check_position(images, value, size, 0.15)


def test_a_cut_shape_would_be_seen():
    images, value = drawn(grid(size=17, orientations=7))
    images[:, :, 0] = 0.0
    with pytest.raises(AssertionError):
        check_position(images, value, 17, 0.15)


def test_colours_are_hues_and_nothing_else():
    source = grid(colours=6)
    assert source.factors.names[-1] == "colour" and source.spec.shape == (48, 48, 3)
    images = source.gather(np.arange(600))["image"]
    brightest = images.reshape(600, -1, 3).max(axis=1)
    six = 255 * np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]])
    np.testing.assert_array_equal(brightest, six[source.factors.values[:600, -1]])
    grey = grid("all")
    plain = np.zeros(len(grey), np.int64)
    plain[grey.grid] = np.arange(len(grey))
    same = grey.gather(plain[source.grid[:600] // 6])["image"][..., 0]
    np.testing.assert_array_equal(images.max(axis=-1), same)
    np.testing.assert_allclose(procedural_shapes.hues(12)[1], [1.0, 0.5, 0.0], atol=1e-6)


def test_the_table_has_it():
    assert sources.SOURCES["shapes"] is shapes


def test_provenance_says_what_made_them():
    facts = grid("test[:50%]").provenance
    assert facts["factors"] == SIZES and facts["count"] == 240 and facts["test_fraction"] == 0.2
    assert facts["split"] == "test[:50%]" and facts["size"] == 48


# What is refused.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 15}, "size is 15; it must be 16 to 64 pixels"),
        ({"size": 65}, "size is 65"),
        ({"scales": 1}, "scales=1, .*accepted: at least 2 of each"),
        ({"colours": 1}, "colours=1; accepted: at least 2 of each, or colours=0"),
        ({"orientations": 10_000, "positions": 1000}, "combinations of factors; accepted: at most"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"split": "validation"}, "unknown split 'validation'; use train, test or all"),
        ({"split": "test", "test_fraction": 0.0}, "split 'test' has no images"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        grid(**{"split": "all", **options})


def test_other_sources_have_no_such_split():
    with pytest.raises(UserError, match=r"unknown split 'all'; use train or test, or a part"):
        sources.digits("all")


def test_bad_settings_at_the_command_line(tmp_path):
    overrides = ["data.source=shapes", "data.options={'size':8}"]
    arguments = train_arguments(VAE, tmp_path / "run", *(f"--config.{change}" for change in overrides))
    line = one_line(*run_many([("train", arguments)]))
    assert "shapes: size is 8; it must be 16 to 64 pixels" in line and not (tmp_path / "run").exists()
