"""PSNR, SSIM and MS-SSIM: closed forms, recorded references, what leaves them alone, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from genjax.metrics import images, pairs
from tests.reference import metrics_reference as reference

RECORDED = np.load(reference.RECORDED)


def random_pair(count=3, height=24, width=20, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 256, (count, height, width, channels)).astype(np.uint8)
    return first, np.clip(first + rng.normal(size=first.shape) * 30, 0, 255).astype(np.uint8)


def constant(value, size=16):
    return np.full((1, size, size, 1), value, np.float64)


# PSNR.


def check_psnr(psnr):
    first, second = random_pair()
    assert np.isposinf(psnr(first, first)).all()
    # A shift of d everywhere is 20 log10(range / d), also where the bytes would wrap around.
    np.testing.assert_allclose(psnr(np.full_like(first, 10), np.full_like(first, 15)), 20 * np.log10(255 / 5))
    np.testing.assert_allclose(psnr(np.full_like(first, 250), np.full_like(first, 0)), 20 * np.log10(255 / 250))
    assert psnr(constant(0.5), constant(0.25), 2.0) == pytest.approx(20 * np.log10(2.0 / 0.25))
    # One value for each pair, of that pair alone.
    values = psnr(np.concatenate([first, second]), np.concatenate([second, np.full_like(first, 0)]))
    assert values.dtype == np.float64 and values.shape == (6,)
    np.testing.assert_allclose(values[:3], psnr(first, second))
    np.testing.assert_allclose(psnr(*reference.image_pairs("uint8")), RECORDED["PSNR_uint8"], rtol=1e-6)


def test_psnr():
    check_psnr(pairs.psnr)


def errors(a, b, axis=(1, 2, 3)):
    return np.square(a.astype(np.float64) - b).mean(axis=axis)


def decibels(value):
    with np.errstate(divide="ignore"):
        return 10 * np.log10(value)


BROKEN_PSNR = {
    "bytes wrap around": lambda a, b, r=255.0: decibels(r**2 / np.square(a - b).astype(float).mean((1, 2, 3))),
    "one error of all pairs": lambda a, b, r=255.0: decibels(r**2 / np.full(len(a), errors(a, b, None))),
    "the range is not squared": lambda a, b, r=255.0: decibels(r / errors(a, b)),
    "half the decibels": lambda a, b, r=255.0: decibels(r**2 / errors(a, b)) / 2,
    "always 255": lambda a, b, r=255.0: decibels(255.0**2 / errors(a, b)),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("broken", BROKEN_PSNR)
def test_the_check_of_psnr_rejects(broken):
    with pytest.raises(AssertionError):
        check_psnr(BROKEN_PSNR[broken])


# SSIM.


def check_ssim(ssim):
    first, second = random_pair()
    np.testing.assert_allclose(ssim(first, first), 1.0, rtol=1e-12)
    np.testing.assert_allclose(ssim(first, second), ssim(second, first), rtol=1e-12)
    # Constant images have a luminance alone.
    c1 = (0.01 * 2.0) ** 2
    expected = (2 * 0.2 * 0.5 + c1) / (0.2**2 + 0.5**2 + c1)
    assert ssim(constant(0.2), constant(0.5), 2.0) == pytest.approx(expected, rel=1e-9)
    # The unit of the values is nothing to it, once their range is stated in it.
    scaled = ssim(first / 100.0, second / 100.0, 2.55)
    np.testing.assert_allclose(scaled, ssim(first, second), rtol=1e-9)
    for kind, data_range in (("uint8", 255.0), ("float", 2.0)):
        found = ssim(*reference.image_pairs(kind), data_range)
        np.testing.assert_allclose(found, RECORDED[f"SSIM_{kind}"], rtol=1e-6)


def test_ssim():
    check_ssim(pairs.ssim)


def filtered_ssim(a, b, data_range=255.0, blur=None, border=5, ratio=1.0, k=(0.01, 0.03)):
    """By scipy's filter over whole images, whose reflected border is then cut; each piece can be broken."""
    blur = blur or (lambda x: ndimage.gaussian_filter(x, (0, 1.5, 1.5, 0), truncate=3.5))
    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (k[0] * data_range) ** 2, (k[1] * data_range) ** 2
    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    values = luminance * (2 * ratio * cov + c2) / (ratio * (va + vb) + c2)
    return values[:, border : values.shape[1] - border, border : values.shape[2] - border].mean((1, 2, 3))


def test_the_check_of_ssim_takes_another_way_to_it():
    check_ssim(filtered_ssim)


def grey(a, b, data_range=255.0):
    return pairs.ssim(*(x.astype(np.float64).mean(-1, keepdims=True) for x in (a, b)), data_range)


BROKEN_SSIM = {
    "a window without weights": lambda a, b, r=255.0: filtered_ssim(
        a, b, r, lambda x: ndimage.uniform_filter(x, (0, 11, 11, 0))
    ),
    "another sigma": lambda a, b, r=255.0: filtered_ssim(a, b, r, lambda x: ndimage.gaussian_filter(x, (0, 1, 1, 0))),
    "an invented border": lambda a, b, r=255.0: filtered_ssim(a, b, r, border=0),
    "unbiased variances": lambda a, b, r=255.0: filtered_ssim(a, b, r, ratio=121 / 120),
    "constants of a range of 255": lambda a, b, r=255.0: filtered_ssim(a, b, 255.0),
    "K1 and K2 exchanged": lambda a, b, r=255.0: filtered_ssim(a, b, r, k=(0.03, 0.01)),
    "channels averaged first": grey,
}


@pytest.mark.parametrize("broken", BROKEN_SSIM)
def test_the_check_of_ssim_rejects(broken):
    with pytest.raises(AssertionError):
        check_ssim(BROKEN_SSIM[broken])


def test_digits_are_kept_far_from_zero():
    first, second = (x.astype(np.float64) for x in random_pair())
    far = pairs.ssim(first + 1e7, second + 1e7, 255.0)
    structure = filtered_ssim(first, second, 255.0, k=(1e6, 0.03))  # luminance is 1 for both
    np.testing.assert_allclose(far, structure, rtol=1e-6)


# MS-SSIM.


def check_ms_ssim(ms_ssim):
    large = reference.image_pairs("float", 2, 176, 192)
    np.testing.assert_allclose(ms_ssim(*large, 2.0), RECORDED["MS-SSIM"], rtol=1e-6)
    # Sizes that can't be halved evenly.
    odd = reference.image_pairs("float", 2, 187, 195)
    np.testing.assert_allclose(ms_ssim(*odd, 2.0), RECORDED["MS-SSIM_terms"], rtol=1e-6)
    # Constant images differ at the coarsest scale alone, by its weight.
    value = pairs.ssim(constant(0.2), constant(0.5), 1.0)
    assert ms_ssim(constant(0.2, 176), constant(0.5, 176), 1.0) == pytest.approx(value**0.1333, rel=1e-9)


def test_ms_ssim():
    check_ms_ssim(pairs.ms_ssim)
    first, _ = reference.image_pairs("float", 2, 176, 192)
    np.testing.assert_allclose(pairs.ms_ssim(first, first, 2.0), 1.0, rtol=1e-12)
    # The negative of an image has structure below 0 at some scale, which has no real power.
    assert (pairs.ms_ssim(first, -first, 2.0) == 0.0).all()


def with_pieces(monkeypatch, **pieces):
    for name, piece in pieces.items():
        monkeypatch.setattr(pairs, name, piece)


BROKEN_MS_SSIM = {
    "luminance at every scale": {"_terms": lambda a, b, r, terms=pairs._terms: (1.0, np.prod(terms(a, b, r), axis=0))},
    "weights from coarse to fine": {"SCALES": pairs.SCALES[::-1]},
    "equal weights": {"SCALES": (0.2,) * 5},
    "four scales": {"SCALES": pairs.SCALES[:4]},
    "no mean before every second value is taken": {"_halved": lambda x: x[..., ::2, ::2]},
}


@pytest.mark.parametrize("broken", BROKEN_MS_SSIM)
def test_the_check_of_ms_ssim_rejects(broken, monkeypatch):
    with_pieces(monkeypatch, **BROKEN_MS_SSIM[broken])
    with pytest.raises(AssertionError):
        check_ms_ssim(pairs.ms_ssim)


# For all of them.


@pytest.mark.parametrize("metric", [pairs.psnr, pairs.ssim])
def test_blocks_change_nothing(metric, monkeypatch):
    first, second = random_pair(count=7)
    whole = metric(first, second)
    monkeypatch.setattr(pairs, "BLOCK_VALUES", 2 * first[0].size)
    np.testing.assert_array_equal(metric(first, second), whole)


@pytest.mark.parametrize(
    ("first", "second", "data_range", "message"),
    [
        (constant(0.0), constant(0.0)[0], 1.0, "no pairs; accepted: equal shapes"),
        (constant(0.0), constant(0.0).astype(np.float32), 1.0, "accepted: the same dtype"),
        (constant(0.0)[0], constant(0.0)[0], 1.0, r"accepted: \[N, H, W, C\]"),
        (constant(0.0)[:0], constant(0.0)[:0], 1.0, r"accepted: \[N, H, W, C\]"),
        (constant(0.0).astype(int), constant(0.0).astype(int), 1.0, "accepted: uint8, or floats"),
        (constant(0.0), constant(0.0), None, "without a data_range; accepted: 1.0 for"),
        (constant(0.0), constant(0.0), 0.0, "accepted: a positive number"),
        (constant(0.0), constant(0.0), np.nan, "accepted: a positive number"),
        (constant(0.0), constant(np.nan), 1.0, "accepted: finite ones"),
        (constant(0.0), np.linspace(-1, 1, 256).reshape(1, 16, 16, 1), 1.0, "more than data_range 1; clip"),
    ],
)
@pytest.mark.parametrize("metric", [pairs.psnr, pairs.ssim, pairs.ms_ssim])
def test_what_is_refused(metric, first, second, data_range, message):
    with pytest.raises(ValueError, match=message):
        metric(first, second, data_range)


@pytest.mark.parametrize(("metric", "least"), [(pairs.ssim, 11), (pairs.ms_ssim, 176)])
def test_small_images_are_refused_with_the_least_size(metric, least):
    for height, width in ((least - 1, least), (least, least - 1)):
        zeros = np.zeros((1, height, width, 1), np.uint8)
        with pytest.raises(ValueError, match=f"accepted: at least {least}x{least}"):
            metric(zeros, zeros)
    zeros = np.zeros((1, least, least, 1), np.uint8)
    assert metric(zeros, zeros) == 1.0


def test_a_range_may_be_stated_for_bytes():
    assert images.value_range(np.zeros((1, 2, 2, 1), np.uint8), None) == 255.0
    assert images.value_range(np.zeros((1, 2, 2, 1), np.uint8), 1.0) == 1.0
