"""Power spectra of images, averaged over directions, and how far those of two sets are apart (Durall et al. 2020).

Generators that upsample leave too much or too little of the highest frequencies, which eyes and features of a network
easily miss.
"""

from __future__ import annotations

import numpy as np

from genjax.metrics.images import value_range

# Power of the rounding to 8 bits at each frequency, with values in [0, 1]: no 8-bit image shows what is below.
ROUNDING = (1.0 / 255.0) ** 2 / 12.0
BLOCK_VALUES = 2**21


def power_spectrum(images: np.ndarray, data_range: float | None = None) -> np.ndarray:
    """Azimuthally averaged power of each image at 0, 1, ... cycles per shorter side (Durall et al. 2020).

    ``|F|^2 / (H W)`` of the discrete Fourier transform of each channel, with values divided by the range: at each
    frequency it is the variance that noise without correlations would have. The mean is over channels and over the
    frequencies whose distance from 0, ``S sqrt((u / H)^2 + (v / W)^2)`` with S = min(H, W), rounds to k. Frequencies
    beyond S / 2, in the corners, belong to no k.

    Args:
      images: ``[N, H, W, C]`` uint8 or float, H and W at least 2.
      data_range: difference between the largest and the smallest possible value; 255 for uint8 unless given.

    Returns:
      float64 ``[N, S // 2 + 1]``, at least 0.

    Raises:
      ValueError: images smaller than 2x2, or what ``value_range`` refuses.
    """
    data_range = value_range(images, data_range)
    count, height, width, _ = images.shape
    side = min(height, width)
    if side < 2:
        raise ValueError(f"images are {height}x{width}; accepted: at least 2x2")
    # Real images have the same power at (u, v) and (-u, -v); half of the columns hold all, some of them for two.
    u, v = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    ring = np.rint(side * np.hypot(u, v)).astype(int).ravel()
    twice = np.where((np.arange(width // 2 + 1) == 0) | (2 * np.arange(width // 2 + 1) == width), 1.0, 2.0)
    weight = np.broadcast_to(twice, (height, width // 2 + 1)).ravel()
    # Frequencies in the order of their k, with the place where each k begins; along the shorter side every k has one.
    order = np.argsort(ring, kind="stable")
    order = order[ring[order] <= side // 2]
    begins = np.searchsorted(ring[order], np.arange(side // 2 + 1))
    total = np.add.reduceat(weight[order], begins)
    size = max(1, BLOCK_VALUES // images[0].size)
    found = []
    for start in range(0, count, size):
        block = images[start : start + size].astype(np.float64).transpose(0, 3, 1, 2) / data_range
        power = np.square(np.abs(np.fft.rfft2(block))).mean(axis=1) / (height * width)
        weighted = power.reshape(len(power), -1)[:, order] * weight[order]
        found.append(np.add.reduceat(weighted, begins, axis=1) / total)
    return np.concatenate(found)


def log_spectrum(spectra: np.ndarray, floor: float = ROUNDING) -> np.ndarray:
    """``10 log10`` of the mean power over a set of images, in dB; float64 ``[K]``.

    Args:
      spectra: float ``[N, K]``, from ``power_spectrum``.
      floor: power below it counts as it; the rounding to 8 bits unless given.

    Raises:
      ValueError: spectra are no ``[N, K]``, hold negative numbers or ones that are not finite; or no positive floor.
    """
    spectra = np.asarray(spectra, np.float64)
    if spectra.ndim != 2 or 0 in spectra.shape:
        raise ValueError(f"spectra have shape {spectra.shape}; accepted: [N, K], none of them 0")
    if not np.isfinite(spectra).all() or spectra.min() < 0:
        raise ValueError("spectra hold numbers that are negative or not finite; accepted: power, at least 0")
    if not (np.isfinite(floor) and floor > 0):
        raise ValueError(f"floor is {floor}; accepted: a positive power")
    return 10.0 * np.log10(np.maximum(spectra.mean(axis=0), floor))


def log_spectrum_distance(first: np.ndarray, second: np.ndarray, floor: float = ROUNDING) -> float:
    """Root mean square difference in dB of two sets' ``log_spectrum`` over all frequencies but 0.

    Durall et al. 2020 compare such spectra; this number for it is ours. Frequency 0 is the brightness.

    Args:
      first, second: float ``[N, K]`` and ``[M, K]``, from ``power_spectrum`` of images of the same size.
      floor: as in ``log_spectrum``.

    Returns:
      At least 0, the smaller the better; a power that is wrong by the factor f at every frequency gives |10 log10 f|.

    Raises:
      ValueError: different K, K below 2, or what ``log_spectrum`` refuses.
    """
    a, b = log_spectrum(first, floor), log_spectrum(second, floor)
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"spectra have {len(a)} and {len(b)} frequencies; accepted: the same number, at least 2")
    return float(np.sqrt(np.square(a - b)[1:].mean()))
