"""Pairs, copies, spectra and modes of a run: evaluators on models whose images are known."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from genjax.data.base import ArraySource
from genjax.data.embedded import digits
from genjax.data.stacked import stacked
from genjax.evaluators import ImagePairs, Memorisation, Modes, Spectrum, pairs
from genjax.evaluators.base import Context, Demanding, Stopped
from genjax.evaluators.features import shipped
from genjax.evaluators.figures import side_by_side
from genjax.evaluators.weights import Weights
from genjax.metrics.pairs import psnr, ssim
from genjax.metrics.spectrum import log_spectrum_distance, power_spectrum
from genjax.types import ImageSpec, UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def noise(count: int, spec: ImageSpec, seed: int = 0) -> ArraySource:
    images = np.random.default_rng(seed).integers(0, 256, (count, *spec.shape), np.uint8)
    return ArraySource(spec, "noise", {"source": "noise", "where": "here", "seed": seed}, images)


class Drawing:
    """A sample function that goes through given images uint8 in their order, whatever the batch size."""

    def __init__(self, images: np.ndarray):
        self.images, self.place = images, 0

    def __call__(self, state, keys, labels):
        start, self.place = self.place, self.place + len(labels)
        rows = np.arange(start, self.place) % len(self.images)
        return self.images[rows].astype(np.float32) / 255.0


def context(source: ArraySource, images: np.ndarray | None = None, **options: Any) -> Context:
    extras = {"reconstruct": options.pop("reconstruct")} if "reconstruct" in options else {}
    functions: Any = SimpleNamespace(eval_step=None, extras=extras, sample=None if images is None else Drawing(images))
    state: Any = None
    return Context(functions, state, source, source.spec, 7, options.pop("batch_size", 50), **options)


# Pairs.

SPEC = ImageSpec(16, 12, 1)


def darker(state, batch, key):
    """Off by a whole number of grey levels that depends on the index; the first three are perfect."""
    off = np.maximum(batch["index"].astype(int) - 2, 0)[:, None, None, None]
    return (np.clip(batch["image"].astype(int) - off, 0, 255) + 0.3) / 255.0  # rounding takes the rest away


def made_of(source: ArraySource) -> np.ndarray:
    off = np.maximum(np.arange(len(source)) - 2, 0)[:, None, None, None]
    return np.clip(source.images.astype(int) - off, 0, 255).astype(np.uint8)


def check_pairs(report, count: int = 23) -> None:
    source = noise(23, SPEC)
    first, second = source.images[:count], made_of(source)[:count]
    each = psnr(first[3:], second[3:])
    assert report.scalars["psnr"] == pytest.approx(each.mean(), rel=1e-9)
    assert report.scalars["ssim"] == pytest.approx(ssim(first, second).mean(), rel=1e-9)
    errors = report.protocol["standard_error"]
    assert errors["psnr"] == pytest.approx(stats.sem(each)) and errors["ssim"] == pytest.approx(
        stats.sem(ssim(first, second))
    )
    assert report.protocol["examples"] == count and report.protocol["equal_pairs"] == 3
    assert set(report.scalars) == {"psnr", "ssim"}
    assert report.protocol["left_out"] == {"ms_ssim": "needs 176 pixels a side, images have 12"}


@pytest.mark.parametrize("batch_size", [5, 23, 64])
def test_pairs_are_reconstructions_as_bytes_beside_their_originals(batch_size):
    source = noise(23, SPEC)
    check_pairs(ImagePairs()(context(source, batch_size=batch_size, reconstruct=darker)))
    check_pairs(ImagePairs(limit=9)(context(source, batch_size=batch_size, reconstruct=darker)), 9)


def unrounded(state, batch, key):
    return darker(state, batch, key) + 0.4 / 255.0


def shifted(state, batch, key):
    return np.roll(darker(state, batch, key), 1, axis=0)


@pytest.mark.parametrize("broken", [unrounded, shifted])
def test_the_check_of_pairs_rejects(broken):
    with pytest.raises(AssertionError):
        check_pairs(ImagePairs()(context(noise(23, SPEC), batch_size=5, reconstruct=broken)))


def test_equal_pairs_alone_have_no_finite_psnr_and_large_images_all_measures():
    source = noise(3, SPEC)
    report = ImagePairs()(context(source, reconstruct=lambda state, batch, key: batch["image"] / 255.0))
    assert report.scalars == {"psnr": np.inf, "ssim": pytest.approx(1.0)} and report.protocol["equal_pairs"] == 3
    large = noise(2, ImageSpec(176, 176, 3))
    report = ImagePairs()(
        context(large, batch_size=2, reconstruct=lambda state, batch, key: 1 - batch["image"] / 255.0)
    )
    assert set(report.scalars) == {"psnr", "ssim", "ms_ssim"} and "left_out" not in report.protocol


def test_the_perceptual_distance_has_its_own_name_and_says_by_which_network(monkeypatch):
    def distance(variables, first, second):
        return variables["scale"] * abs(first.astype("float32") - second.astype("float32")).mean(axis=(1, 2, 3))

    facts = {"name": "efficientnet_lite0", "sha256": "0"}
    monkeypatch.setattr(pairs, "weights", lambda name: Weights({"scale": np.float32(2.0)}, facts))
    monkeypatch.setattr(pairs, "lite0_perceptual_distance", distance)
    source = noise(23, SPEC)
    report = ImagePairs(perceptual=True)(context(source, reconstruct=darker, compiled=jax.jit))
    expected = 2 * np.abs(source.images.astype(float) - made_of(source)).mean(axis=(1, 2, 3))
    assert report.scalars["lite0_perceptual_distance"] == pytest.approx(expected.mean(), rel=1e-5)
    assert report.protocol["perceptual"] == {"network": facts, "stages": [0, 1, 2, 4, 6], "size": 224}
    assert not [name for name in report.scalars if "lpips" in name]


# Copies.


def test_copies_are_told_from_fresh_images():
    spec = ImageSpec(4, 4, 1)
    train, test, fresh = noise(400, spec), noise(300, spec, 1), noise(200, spec, 2).images
    new = Memorisation(num_samples=200)(context(test, fresh, training=train))
    assert abs(new.scalars["copying_z"]) < 3 and new.scalars["copied_share"] < 0.05
    assert new.protocol["expected"]["nearer_train_share"] == pytest.approx(400 / 700)
    assert abs(new.scalars["nearer_train_share"] - 400 / 700) < 0.12
    copies = np.where(np.arange(200)[:, None, None, None] < 100, train.images[:200], fresh)
    old = Memorisation(num_samples=200)(context(test, copies, training=train))
    assert old.scalars["copying_z"] < -7 and old.protocol["p_value"] < 1e-9
    assert old.scalars["copied_share"] >= 0.5 > 0.1 > new.scalars["copied_share"]
    assert old.protocol["space"] == "pixels" and old.protocol["training_images"] == 400
    assert (old.protocol["samples"], old.protocol["heldout_images"]) == (200, 300)


def test_the_picture_has_the_closest_samples_above_their_training_images():
    spec = ImageSpec(4, 4, 3)
    train, test = noise(50, spec), noise(40, spec, 1)
    samples = noise(10, spec, 2).images
    samples[7], samples[2] = train.images[31], train.images[5]
    samples[2, 0, 0, 0] ^= 1  # nearly a copy
    ctx = context(test, samples, training=train)
    picture = Memorisation(num_samples=10, heldout=30, percent=10.0, pairs=2)(ctx).images["nearest_training_images"]
    expected = side_by_side(samples[[7, 2]], train.images[[31, 5]])
    np.testing.assert_array_equal(picture, expected)


def test_features_of_a_network_are_compared_where_one_is_named():
    train, test = digits("train"), digits("test")
    shifted = np.roll(train.images[:60], 1, axis=2)
    own = Memorisation(features="digits", num_samples=60, heldout=100)
    report = own(context(test, train.images[:60], training=train, compiled=jax.jit))
    assert report.scalars["copying_z"] < -10 and report.scalars["nearest_train_distance"] == 0.0
    assert report.protocol["space"]["sha256"] == shipped("digits").facts["sha256"]
    assert report.protocol["heldout_images"] == 100
    moved = own(context(test, shifted, training=train, compiled=jax.jit))
    assert moved.scalars["nearest_train_distance"] > 0.0
    few = dataclasses.replace(own, percent=5.0)
    limited = few(context(test, shifted, training=train, compiled=jax.jit, limit=30))
    assert limited.protocol["heldout_images"] == 30


def test_what_memorisation_refuses():
    spec = ImageSpec(4, 4, 1)
    train, test, samples = noise(50, spec), noise(40, spec, 1), noise(5, spec, 2).images
    with pytest.raises(UserError, match="needs the training split"):
        Memorisation()(context(test, samples))
    with pytest.raises(UserError, match=r"features='digits' looks at images of \(8, 8, 1\).*\(4, 4, 1\).*'pixels'"):
        Memorisation(features="digits", percent=5.0).check(context(test, samples, training=train))
    with pytest.raises(UserError, match="features='pixel' is unknown; accepted: digits, .*pixels"):
        Memorisation(features="pixel")
    with pytest.raises(UserError, match="'memorisation': percent=1 of 40 held-out images"):
        Memorisation(num_samples=5)(context(test, samples, training=train))
    wrong: dict[str, Any]
    for wrong in ({"num_samples": 1}, {"heldout": -1}, {"pairs": 0}):
        with pytest.raises(ValueError, match="too small; accepted: at least"):
            Memorisation(**wrong)


# Spectra.


def test_the_spectrum_is_that_of_samples_against_the_whole_split():
    spec = ImageSpec(12, 10, 3)
    train, test = noise(30, spec), noise(40, spec, 1)
    smooth = (test.images // 2 + np.roll(test.images, 1, axis=2) // 2)[:20]
    report = Spectrum(num_samples=20)(context(test, smooth, batch_size=16, training=train))
    expected = log_spectrum_distance(power_spectrum(smooth), power_spectrum(test.images))
    assert report.scalars == {"log_spectrum_distance": pytest.approx(expected, rel=1e-6)}
    assert expected > 1.0 > report.protocol["log_spectrum_distance_of_training_images"]
    curves = report.protocol["decibels"]
    assert list(curves) == ["test images", "samples"] and {len(curve) for curve in curves.values()} == {6}
    assert curves["samples"][-1] < curves["test images"][-1] - 1.0
    assert report.protocol["examples"] == 40 and report.protocol["samples"] == 20
    picture = report.images["spectrum"]
    assert picture.dtype == np.uint8 and picture.shape == (400, 600, 3)
    same = Spectrum(num_samples=40)(context(test, test.images))
    assert same.scalars["log_spectrum_distance"] == pytest.approx(0.0, abs=1e-9)
    assert "log_spectrum_distance_of_training_images" not in same.protocol


# Modes.


def stacked_context(images: np.ndarray, **options: Any) -> Context:
    source: Any = stacked("test[:400]", base="digits")
    return context(source, images, compiled=jax.jit, batch_size=100, **options)


def check_modes(evaluator: Modes) -> None:
    """Real images have the modes of their labels but for the classifier's errors; one mode alone is found as one."""
    batch = stacked("train", base="digits", train_count=400).gather(np.arange(400))
    report = evaluator(stacked_context(batch["image"]))
    there = len(np.unique(batch["label"]))
    assert abs(report.scalars["modes_found"] - there) < 0.05 * there
    assert report.scalars["mode_kl"] == pytest.approx(report.protocol["test_images"]["mode_kl"], abs=0.1)
    assert report.protocol["expected_by_chance"]["modes_found"] == pytest.approx(there, abs=40)
    assert report.protocol["modes"] == 1000 and report.protocol["test_images"]["count"] == 400
    three = digits("train")
    channels = [three.images[three.labels == digit][0, ..., 0] for digit in (4, 0, 7)]
    alone = evaluator(stacked_context(np.stack(channels, axis=-1)[None]))
    assert alone.scalars == {"modes_found": 1.0, "mode_kl": pytest.approx(np.log(1000))}


def test_modes_are_the_digits_of_the_channels():
    check_modes(Modes("digits", num_samples=400))


class OneChannel(Modes):
    """Names every channel by the first."""

    def __call__(self, context):
        sample: Any = context.functions.sample
        grey = Drawing(np.repeat(sample.images[..., :1], 3, axis=-1))
        return super().__call__(dataclasses.replace(context, functions=SimpleNamespace(sample=grey, extras={})))


def test_the_check_of_modes_rejects_one_channel_for_all():
    with pytest.raises(AssertionError):
        check_modes(OneChannel("digits", num_samples=400))


def test_what_modes_refuse():
    with pytest.raises(
        UserError, match=r"classifier='mnist' names channels of 28x28; images of this run are \(8, 8, 3\)"
    ):
        Modes().check(stacked_context(np.zeros((1, 8, 8, 3), np.uint8)))
    with pytest.raises(UserError, match="classifier='svhn' is unknown; accepted: digits"):
        Modes("svhn")
    with pytest.raises(ValueError, match="num_samples=0 is too small"):
        Modes(num_samples=0)


# All of them.


@pytest.mark.parametrize("evaluator", [ImagePairs(), Memorisation(), Spectrum(), Modes("digits")])
def test_a_family_without_the_function_is_named_before_training(evaluator):
    assert isinstance(evaluator, Demanding)
    with pytest.raises(UserError, match="needs the function 'reconstruct'|can't sample"):
        evaluator.check(context(noise(5, ImageSpec(8, 8, 3))))


def test_evaluations_stop_when_asked():
    source = noise(20, ImageSpec(8, 8, 3))
    for evaluator in (ImagePairs(), Spectrum(num_samples=5)):
        with pytest.raises(Stopped):
            evaluator(context(source, source.images, stop=lambda: True, reconstruct=darker))
