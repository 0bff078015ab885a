"""Image files that are whole or not there."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from genjax.io.files import write_atomic
from genjax.types import UserError


def save_png(path: str | os.PathLike[str], image: Any, parents: bool = True) -> None:
    """Writes a PNG file atomically; missing parent folders are made, unless ``parents`` is false.

    Args:
      path: where.
      image: uint8 ``[H, W, C]`` with 1 or 3 channels, or ``[H, W]``.

    Raises:
      UserError: wrong type or shape, or the file cannot be written.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.dtype != np.uint8 or not image.size or not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3)):
        raise UserError(
            f"picture for {path}: {image.dtype}{list(image.shape)} is no image; must be uint8 [H, W] or [H, W, 1 or 3]"
        )
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue(), parents)


def save_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed ``.npz`` file atomically; missing parent folders are made.

    Raises:
      UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomic(path, buffer.getvalue())
