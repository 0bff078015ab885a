"""How deep a strided network is, read off the image size."""

from __future__ import annotations


def ladder(image_shape: tuple[int, int, int]) -> tuple[int, tuple[int, int]]:
    """Number of halvings and the base grid of a network for ``image_shape`` (height, width, channels).

    Height and width are halved while both are even and the smaller half is at least 4:
    28x28 -> 2 halvings to 7x7, 32x32 -> 3 to 4x4, 64x64 -> 4 to 4x4.

    Raises:
      ValueError: the size can't be halved at all, or stops halving on a grid above 15.
    """
    height, width, _ = image_shape
    depth, h, w = 0, height, width
    while h % 2 == 0 and w % 2 == 0 and min(h, w) // 2 >= 4:
        depth, h, w = depth + 1, h // 2, w // 2
    if depth == 0 or max(h, w) > 15:
        raise ValueError(
            f"image size {height}x{width} does not fit: height and width must halve evenly, at least once, "
            "down to a grid between 4 and 15 (such as 8, 24, 28, 32, 48, 64, 96, 128)"
        )
    return depth, (h, w)
