"""How far an image is from the one it should be: PSNR, SSIM and MS-SSIM, one value per pair.

For reconstructions, compressed and restored images. All are in float64, and all depend on the range of the values,
which is 255 for uint8 and has to be stated for floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from genjax.metrics.images import pair_range

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
# The exponents of the five scales, from the images themselves to a sixteenth of them (Wang et al. 2003, section 3.2).
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
TILE = 64  # windows that are computed by one product
BLOCK_VALUES = 2**21  # values of a block of images, which bounds the memory whatever their number


def psnr(first: np.ndarray, second: np.ndarray, data_range: float | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, ``10 log10(range^2 / MSE)`` with the MSE over all values of a pair.

    Args:
      first, second: ``[N, H, W, C]``, both uint8 or both of the same float dtype.
      data_range: difference between the largest and the smallest possible value; 255 for uint8 unless given.

    Returns:
      float64 ``[N]``; larger is better, infinite for identical images.

    Raises:
      ValueError: shapes or dtypes differ, or what ``value_range`` refuses.
    """
    data_range = pair_range(first, second, data_range)
    errors = [np.square(a - b).mean(axis=(1, 2, 3)) for a, b in _blocks(first, second)]
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(data_range**2 / np.concatenate(errors))


def ssim(first: np.ndarray, second: np.ndarray, data_range: float | None = None) -> np.ndarray:
    """Structural similarity, mean over windows and channels (Wang et al. 2004, eq. 13 and 17).

    A Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, and variances that divide by the window's weight
    (not unbiased). Only windows that lie within the image count, so no border is invented: the outer 5 values on each
    side are centres of no window. Each channel is compared by itself, and their values are averaged. The luminance term
    takes values for brightness from 0 up, so shift floats from [-1, 1] to [0, 2] first.

    Args:
      first, second: ``[N, H, W, C]`` with H and W at least 11, both uint8 or both of the same float dtype.
      data_range: difference between the largest and the smallest possible value; 255 for uint8 unless given.

    Returns:
      float64 ``[N]`` in [-1, 1]; larger is better, 1 for identical images only.

    Raises:
      ValueError: shapes or dtypes differ, images smaller than the window, or what ``value_range`` refuses.
    """
    data_range = pair_range(first, second, data_range)
    _refuse_small(first.shape, 1)
    return _each(first, second, lambda a, b: np.prod(_terms(a, b, data_range), axis=0).mean(axis=(-2, -1)))


def ms_ssim(first: np.ndarray, second: np.ndarray, data_range: float | None = None) -> np.ndarray:
    """Multi-scale structural similarity over five scales (Wang et al. 2003, eq. 7).

    ``prod_j mean(cs_j)^w_j`` of contrast times structure over the scales, the coarsest one with luminance too, each
    mean over the windows of ``ssim``; from scale to scale 2x2 values are averaged, and a last odd row or column is left
    out. Each channel is taken through all scales by itself, and their values are averaged. A mean below 0, which has
    no real power, counts as 0.

    Args:
      first, second: ``[N, H, W, C]`` with H and W at least 176, both uint8 or both of the same float dtype.
      data_range: difference between the largest and the smallest possible value; 255 for uint8 unless given.

    Returns:
      float64 ``[N]`` in [0, 1]; larger is better, 1 for identical images only.

    Raises:
      ValueError: shapes or dtypes differ, images too small for the coarsest scale, or what ``value_range`` refuses.
    """
    data_range = pair_range(first, second, data_range)
    _refuse_small(first.shape, len(SCALES))

    def of_channels(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        value = np.ones(a.shape[:2])
        for scale, weight in enumerate(SCALES):
            luminance, structure = _terms(a, b, data_range)
            last = scale == len(SCALES) - 1
            mean = (luminance * structure if last else structure).mean(axis=(-2, -1))
            value *= np.maximum(mean, 0.0) ** weight
            a, b = _halved(a), _halved(b)
        return value

    return _each(first, second, of_channels)


def _refuse_small(shape: tuple[int, ...], scales: int) -> None:
    least = WINDOW * 2 ** (scales - 1)
    if min(shape[1:3]) < least:
        raise ValueError(f"images are {shape[1]}x{shape[2]}; accepted: at least {least}x{least} for {scales} scale(s)")


def _blocks(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Both in float64, so many images at a time that memory is bounded."""
    size = max(1, BLOCK_VALUES // first[0].size)
    for start in range(0, len(first), size):
        part = slice(start, start + size)
        yield first[part].astype(np.float64), second[part].astype(np.float64)


def _each(first: np.ndarray, second: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean over channels of a measure of ``[B, C, H, W]`` that gives ``[B, C]``."""
    found = []
    for block in _blocks(first, second):
        a, b = (images.transpose(0, 3, 1, 2) for images in block)
        found.append(measure(a, b).mean(axis=1))
    return np.concatenate(found)


def _terms(a: np.ndarray, b: np.ndarray, data_range: float) -> tuple[np.ndarray, np.ndarray]:
    """Luminance, and contrast times structure, in every window (Wang et al. 2004, eq. 6; 9 and 10 with C3 = C2 / 2)."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = _windowed(a), _windowed(b)
    # Shifted by the images' own means, the squares keep their digits where images are far from 0.
    shift_a, shift_b = (images.mean(axis=(-2, -1), keepdims=True) for images in (a, b))
    a, b, low_a, low_b = a - shift_a, b - shift_b, mean_a - shift_a, mean_b - shift_b
    variances = _windowed(np.square(a)) - np.square(low_a) + _windowed(np.square(b)) - np.square(low_b)
    covariance = _windowed(a * b) - low_a * low_b
    luminance = (2 * mean_a * mean_b + c1) / (np.square(mean_a) + np.square(mean_b) + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _windowed(images: np.ndarray) -> np.ndarray:
    """Gaussian means of ``[B, C, H, W]`` over every window that lies within: ``[B, C, H - 10, W - 10]``."""
    return _along_rows(_along_rows(images).swapaxes(-2, -1)).swapaxes(-2, -1)


def _along_rows(images: np.ndarray) -> np.ndarray:
    """Windows of 11 along H, as products with a matrix that has the weights of one window in each row."""
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * np.square(distance / SIGMA))
    height = images.shape[-2] - WINDOW + 1
    # The matrix is zero but for a band, so a large one is not made whole.
    tile = min(height, TILE)
    band = np.zeros((tile, tile + WINDOW - 1))
    for row in range(tile):
        band[row, row : row + WINDOW] = weights / weights.sum()
    means = np.empty((*images.shape[:-2], height, images.shape[-1]))
    for start in range(0, height, tile):
        rows = min(tile, height - start)
        reach = rows + WINDOW - 1
        means[..., start : start + rows, :] = band[:rows, :reach] @ images[..., start : start + reach, :]
    return means


def _halved(images: np.ndarray) -> np.ndarray:
    """Means of 2x2 values of ``[B, C, H, W]``."""
    height, width = (size // 2 for size in images.shape[-2:])
    cut = images[..., : 2 * height, : 2 * width]
    return cut.reshape(*images.shape[:-2], height, 2, width, 2).mean(axis=(-3, -1))
