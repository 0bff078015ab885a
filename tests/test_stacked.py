"""Stacked digits: every image is three of the base's, the same ones always, and all modes are equally frequent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from genjax.data import embedded, records, sources
from genjax.data.base import ArraySource
from genjax.data.stacked import stacked
from genjax.types import ImageSpec, UserError


def of_digits(split: str = "train", **options) -> sources.Source:
    return stacked(split, base="digits", **{"train_count": 20_000, "test_count": 5_000, **options})


def everything(source) -> dict[str, np.ndarray]:
    return source.gather(np.arange(len(source)))


def test_channels_are_digits_of_the_split_and_the_label_is_their_number():
    source = of_digits("test[:200]")
    batch = everything(source)
    assert source.spec == ImageSpec(8, 8, 3, 1000, tuple(f"{i:03}" for i in range(1000)))
    assert batch["image"].dtype == np.uint8 and batch["image"].shape == (200, 8, 8, 3)
    assert batch["label"].dtype == np.int32
    base = everything(embedded.digits("test"))
    known = {image.tobytes(): label for image, label in zip(base["image"], base["label"], strict=True)}
    for image, label in zip(batch["image"], batch["label"], strict=True):
        digits = [known[np.ascontiguousarray(image[..., c]).tobytes()] for c in range(3)]
        assert label == 100 * digits[0] + 10 * digits[1] + digits[2]


def test_an_image_depends_on_seed_split_and_number_alone():
    whole, part = everything(of_digits()), everything(of_digits("train[100:300]"))
    for name in ("image", "label"):
        np.testing.assert_array_equal(part[name], whole[name][100:300])
    few = everything(of_digits(train_count=300))
    np.testing.assert_array_equal(few["image"], whole["image"][:300])
    picked = of_digits().gather(np.array([7, 3, 7]))
    np.testing.assert_array_equal(picked["image"], whole["image"][[7, 3, 7]])
    other = everything(of_digits(seed=1))
    assert (other["label"] != whole["label"]).mean() > 0.99


def check_uniform(labels: np.ndarray) -> None:
    """Digits independent of each other: what chi-squared says of 1000 equal modes but for the digits' own shares."""
    digits = np.stack([labels // 100, labels // 10 % 10, labels % 10], axis=-1)
    shares = [np.bincount(digits[:, c], minlength=10) / len(digits) for c in range(3)]
    expected = len(labels) * np.einsum("a,b,c->abc", *shares).ravel()
    found = np.bincount(labels, minlength=1000)
    statistic = float((np.square(found - expected) / expected).sum())
    assert stats.chi2(1000 - 1 - 3 * 9).cdf(statistic) < 0.999, statistic


def test_channels_are_drawn_independently():
    labels = everything(of_digits())["label"]
    check_uniform(labels)
    assert len(np.unique(labels)) == 1000
    tied = labels // 100 * 111  # three times the same digit
    half = np.where(np.arange(len(labels)) % 10 == 0, tied, labels)
    for broken in (tied, half):
        with pytest.raises(AssertionError):
            check_uniform(broken)


def test_each_channel_takes_every_image_before_one_comes_again():
    source = of_digits("test", test_count=2 * 296)
    assert source.rows.shape == (592, 3) and (source.rows[:, 0] != source.rows[:, 1]).any()
    for channel in range(3):
        assert (np.bincount(source.rows[:296, channel]) == 1).all()
        assert (np.bincount(source.rows[:, channel]) == 2).all()


def test_provenance_says_what_it_is_made_of():
    source = of_digits("test[:50%]", seed=3)
    assert source.name == "stacked_digits" and len(source) == 2500
    expected = {"source": "stacked", "of": "digits", "split": "test[:50%]", "count": 2500, "whole": 5000, "seed": 3}
    assert {name: source.provenance[name] for name in expected} == expected
    assert source.provenance["sha256"] == embedded.DIGITS_SHA256 and source.provenance["images_of_base"] == 296
    assert len(sources.in_memory(source, 2**30).images) == 2500


def fake(spec: ImageSpec):
    images = np.zeros((4, *spec.shape), np.uint8)
    labels = np.zeros(4, np.int32) if spec.classes else None
    return lambda name, split, data_dir: ArraySource(spec, name, {}, images, labels)


def test_a_set_of_tfds_and_what_can_not_be_stacked(monkeypatch):
    monkeypatch.setattr(records, "tfds", fake(ImageSpec(4, 6, 1, 3, ("ant", "bee", "cat"))))
    source = stacked("train", "pets", train_count=5)
    assert source.spec == ImageSpec(4, 6, 3, 27) and source.name == "stacked_pets"
    for spec, found in (
        (ImageSpec(4, 4, 3, 2), r"images of \(4, 4, 3\)"),
        (ImageSpec(4, 4, 1), "0 classes"),
    ):
        monkeypatch.setattr(records, "tfds", fake(spec))
        with pytest.raises(UserError, match=found + ".*accepted: grey images with labels"):
            stacked("train", "pets")


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"split": "validation"}, "'validation'"),
        ({"split": "test[:0]"}, "no images"),
        ({"train_count": 0}, "train_count is 0"),
        ({"test_count": 1.5}, "test_count is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_one_line(options, culprit):
    with pytest.raises(UserError) as caught:
        stacked(**{"split": "train", "base": "digits", **options})
    assert culprit in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(sources.load("stacked", split="test", base="digits"), sources.Source)
