"""Power spectra: waves, noise, Parseval, every frequency by hand; and the distance of two sets' spectra."""

from __future__ import annotations

import numpy as np
import pytest

from genjax.metrics import spectrum
from genjax.metrics.spectrum import ROUNDING, log_spectrum, log_spectrum_distance, power_spectrum


def by_hand(images, data_range, ring=np.rint, power=lambda f: np.abs(f) ** 2, mean=np.mean, size=None, half=False):
    """Frequency by frequency; each piece can be broken."""
    _, height, width, channels = images.shape
    side = min(height, width)
    found = [[] for _ in range(side // 2 + 1)]
    transform = power(np.fft.fft2(images / data_range, axes=(1, 2))) / (size or height * width)
    for i, u in enumerate(np.fft.fftfreq(height)):
        for j, v in enumerate(np.fft.fftfreq(width)[: width // 2 + 1 if half else width]):
            k = int(ring(side * np.hypot(u, v)))
            if k < len(found):
                found[k] += [transform[:, i, j, c] for c in range(channels)]
    return np.stack([mean(values, axis=0) for values in found], axis=1)


def waves(k, size=16, angle=(1, 0)):
    y, x = np.mgrid[:size, :size]
    return 0.5 + 0.25 * np.cos(2 * np.pi * k * (angle[0] * y + angle[1] * x) / size)[None, :, :, None]


def check_spectrum(power_spectrum):
    # A wave is at its own frequency, whatever its direction, with its variance times the number of values.
    for k in range(1, 8):
        across, down = power_spectrum(waves(k), 1.0)[0], power_spectrum(waves(k, angle=(0, 1)), 1.0)[0]
        np.testing.assert_allclose(across, down, atol=1e-12)
        assert across[1:].argmax() + 1 == k and across[0] == pytest.approx(256 * 0.5**2)
        ring = np.rint(np.hypot(*np.meshgrid(np.fft.fftfreq(16, 1 / 16), np.fft.fftfreq(16, 1 / 16)))) == k
        assert across[k] * ring.sum() == pytest.approx(256 * 0.25**2 / 2)
        assert np.delete(across, [0, k]) == pytest.approx(0.0, abs=1e-12)
    # Noise without correlations is at its variance everywhere.
    noise = np.clip(0.5 + 0.1 * np.random.default_rng(0).normal(size=(400, 12, 12, 2)), 0, 1)
    np.testing.assert_allclose(power_spectrum(noise, 1.0).mean(0)[1:], 0.1**2, rtol=0.05)
    # Odd and unequal sides, bytes, a stated range.
    rng = np.random.default_rng(1)
    for shape in [(2, 8, 8, 1), (1, 9, 7, 3), (2, 6, 11, 2), (1, 5, 10, 1), (1, 2, 3, 1)]:
        images = rng.integers(0, 256, shape).astype(np.uint8)
        found = power_spectrum(images)
        assert found.dtype == np.float64 and found.shape == (shape[0], min(shape[1:3]) // 2 + 1)
        np.testing.assert_allclose(found, by_hand(images, 255.0), rtol=1e-9)
        np.testing.assert_allclose(power_spectrum(images / 100.0, 2.55), found, rtol=1e-9)


def test_spectrum():
    check_spectrum(power_spectrum)


def test_the_check_of_the_spectrum_takes_another_way_to_it():
    check_spectrum(by_hand_with())


def by_hand_with(**pieces):
    return lambda images, data_range=255.0: by_hand(images, data_range, **pieces)


BROKEN = {
    "amplitudes": by_hand_with(power=np.abs),
    "sums over directions": by_hand_with(mean=np.sum),
    "rounded down": by_hand_with(ring=np.floor),
    "not by the number of values": by_hand_with(size=1),
    "half of the plane, which is not all": by_hand_with(half=True),
    "medians": by_hand_with(mean=np.median),
    "always 255": lambda images, data_range=255.0: power_spectrum(images, 255.0),
    "the first channel": lambda images, data_range=255.0: power_spectrum(images[..., :1], data_range),
    "of the channels' mean": lambda images, data_range=255.0: power_spectrum(
        images.astype(np.float64).mean(-1, keepdims=True), data_range
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_check_of_the_spectrum_rejects(broken):
    with pytest.raises(AssertionError):
        check_spectrum(BROKEN[broken])


def test_blocks_change_nothing(monkeypatch):
    images = np.random.default_rng(2).random((7, 8, 8, 3))
    whole = power_spectrum(images, 1.0)
    monkeypatch.setattr(spectrum, "BLOCK_VALUES", 2 * images[0].size)
    np.testing.assert_allclose(power_spectrum(images, 1.0), whole, rtol=1e-12)


# The distance.


def check_distance(distance):
    rng = np.random.default_rng(3)
    first = power_spectrum(np.clip(0.5 + 0.1 * rng.normal(size=(50, 16, 16, 1)), 0, 1), 1.0)
    assert distance(first, first) == 0.0
    # A power that is wrong by the same factor everywhere, at few frequencies, and only in brightness.
    assert distance(first, 4 * first) == distance(4 * first, first) == pytest.approx(10 * np.log10(4))
    factor = np.ones(9)
    factor[-2:] = 10.0
    assert distance(first, factor * first) == pytest.approx(10 * np.sqrt(2 / 8))
    assert distance(first, np.r_[5.0, np.ones(8)] * first) == pytest.approx(0.0, abs=1e-12)
    # Powers in opposite directions don't cancel.
    opposite = np.r_[1.0, np.tile([2.0, 0.5], 4)]
    assert distance(first, opposite * first) == pytest.approx(10 * np.log10(2))
    # One image without any power tells nothing of the others, and less than the rounding of bytes is nothing.
    assert distance(first, np.concatenate([first[:49], 0 * first[:1]])) < 0.5
    assert distance(np.zeros((3, 9)), np.full((2, 9), ROUNDING)) == 0.0
    # Means over the sets, whatever their numbers.
    assert distance(first, np.concatenate([first, first])) == pytest.approx(0.0, abs=1e-12)


def test_distance():
    check_distance(log_spectrum_distance)


def decibels(rows):
    return 10 * np.log10(np.maximum(rows.mean(0), ROUNDING))


BROKEN_DISTANCES = {
    "with the brightness": lambda a, b: np.sqrt(np.square(decibels(a) - decibels(b)).mean()),
    "signed": lambda a, b: (decibels(b) - decibels(a))[1:].mean(),
    "absolute": lambda a, b: np.abs(decibels(b) - decibels(a))[1:].mean(),
    "natural logarithms": lambda a, b: log_spectrum_distance(a, b) * np.log(10) / 10,
    "means of logarithms": lambda a, b: np.sqrt(
        np.square((10 * np.log10(a + 1e-15)).mean(0) - (10 * np.log10(b + 1e-15)).mean(0))[1:].mean()
    ),
    "no logarithms": lambda a, b: np.sqrt(np.square(a.mean(0) - b.mean(0))[1:].mean()),
    "sums over the sets": lambda a, b: log_spectrum_distance(a * len(a), b * len(b)),
}


@pytest.mark.parametrize("broken", BROKEN_DISTANCES)
def test_the_check_of_the_distance_rejects(broken):
    with pytest.raises(AssertionError):
        check_distance(BROKEN_DISTANCES[broken])


def test_what_upsampling_leaves_is_seen():
    """Images whose values are repeated in pairs lack high frequencies; fresh ones of the same kind don't."""
    rng = np.random.default_rng(4)
    noise, fresh = (np.clip(0.5 + 0.1 * rng.normal(size=(100, 16, 16, 1)), 0, 1) for _ in range(2))
    small = np.clip(0.5 + 0.1 * rng.normal(size=(100, 8, 8, 1)), 0, 1)
    repeated = small.repeat(2, axis=1).repeat(2, axis=2)
    a, b, c = (power_spectrum(images, 1.0) for images in (noise, fresh, repeated))
    assert log_spectrum_distance(a, b) < 0.3
    assert log_spectrum_distance(a, c) > 5.0
    assert log_spectrum(c)[-1] < log_spectrum(a)[-1] - 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_spectrum(np.zeros((1, 1, 4, 1)), 1.0), "accepted: at least 2x2"),
        (lambda: power_spectrum(np.zeros((1, 4, 4, 1))), "without a data_range"),
        (lambda: power_spectrum(np.zeros((4, 4, 1)), 1.0), r"accepted: \[N, H, W, C\]"),
        (lambda: log_spectrum(np.zeros(4)), r"accepted: \[N, K\]"),
        (lambda: log_spectrum(np.full((2, 4), np.nan)), "negative or not finite"),
        (lambda: log_spectrum(np.full((2, 4), -1.0)), "negative or not finite"),
        (lambda: log_spectrum(np.ones((2, 4)), 0.0), "accepted: a positive power"),
        (lambda: log_spectrum_distance(np.ones((2, 4)), np.ones((2, 5))), "4 and 5 frequencies; accepted: the same"),
        (lambda: log_spectrum_distance(np.ones((2, 1)), np.ones((2, 1))), "at least 2"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
