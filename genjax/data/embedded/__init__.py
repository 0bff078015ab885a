"""Data sets small enough to be part of the package; see ``README.md`` beside this file for origin and licence."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np

from genjax.data.base import ArraySource, check_not_empty, parse_split, split_slice
from genjax.types import ImageSpec

DIGITS_SHA256 = "a19cb3d96bba7deace8ee5a513a6eb7bad0403d528f00bf4d351b6a7a55baa91"
_EVERY = 6


def digits(split: str) -> ArraySource:
    """scikit-learn's handwritten digits: 8x8 grey, 10 classes, 1,501 for training and 296 for testing.

    Source: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, doi:10.24432/C50P49, CC BY 4.0.

    Args:
      split: ``"train"`` or ``"test"`` (every sixth image of each class), or a part of one such as ``"train[:90%]"``.

    Raises:
      UserError: unknown or empty split.
    """
    part = parse_split(split, "digits")
    with np.load(pathlib.Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    rank = np.zeros(len(labels), np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    chosen = np.flatnonzero((rank % _EVERY == _EVERY - 1) == (part == "test"))
    chosen = chosen[split_slice(split, len(chosen))]
    check_not_empty(len(chosen), split, "digits", len(labels))
    spec = ImageSpec(8, 8, 1, 10, tuple("0123456789"))
    provenance = {"source": "digits", "where": "embedded", "split": split, "count": len(chosen), "sha256": digest}
    return ArraySource(spec, "digits", provenance, images[chosen], labels[chosen].astype(np.int32))
