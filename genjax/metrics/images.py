"""What the metrics on images accept: ``[N, H, W, C]``, uint8, or floats whose range is stated."""

from __future__ import annotations

import numpy as np


def value_range(images: np.ndarray, data_range: float | None, name: str = "images") -> float:
    """Checks images ``[N, H, W, C]`` and gives the difference between their largest and smallest possible value.

    uint8 has 255 unless another range is stated; floats have none of their own, so theirs has to be stated.

    Raises:
      ValueError: no images, another rank or dtype, no range for floats, a range that is not positive, numbers that are
        not finite, or values further apart than the range.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{name} have shape {images.shape}; accepted: [N, H, W, C], none of them 0")
    is_float = np.issubdtype(images.dtype, np.floating)
    if not is_float and images.dtype != np.uint8:
        raise ValueError(f"{name} are {images.dtype}; accepted: uint8, or floats with a data_range")
    if data_range is None:
        if is_float:
            raise ValueError(
                f"{name} are {images.dtype} without a data_range; accepted: 1.0 for [0, 1], 2.0 for [-1, 1]"
            )
        data_range = 255.0
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range is {data_range}; accepted: a positive number")
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} hold numbers that are not finite; accepted: finite ones")
    # A wrong range shifts every score and shows nowhere else; the allowance is for rounding to float32.
    if high - low > data_range * (1 + 1e-5):
        raise ValueError(f"{name} span {low:g} to {high:g}, more than data_range {data_range:g}; clip or widen it")
    return float(data_range)


def pair_range(first: np.ndarray, second: np.ndarray, data_range: float | None) -> float:
    """``value_range`` of two arrays that are compared image by image; also refuses unequal shapes or dtypes."""
    if first.shape != second.shape:
        raise ValueError(f"images of shape {first.shape} and {second.shape} are no pairs; accepted: equal shapes")
    if first.dtype != second.dtype:
        raise ValueError(f"images are {first.dtype} and {second.dtype}; accepted: the same dtype, in the same range")
    value_range(first, data_range, "first images")
    return value_range(second, data_range, "second images")
