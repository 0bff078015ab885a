"""Images from a NumPy ``.npz`` file."""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from genjax.data.base import (
    ArraySource,
    check_not_empty,
    check_test_fraction,
    held_out,
    parse_split,
    split_slice,
)
from genjax.types import ImageSpec, UserError

# (images, labels) of each split, in the spellings that are accepted: with a split of its own, then as Keras writes it.
_SPLIT_KEYS = (
    {"train": ("train_images", "train_labels"), "test": ("test_images", "test_labels")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
)
_WHOLE_KEYS = ("images", "labels")


def arrays(path: str, split: str, test_fraction: float = 0.1) -> ArraySource:
    """Images (and labels) from an ``.npz`` file, nothing unpickled.

    Accepted keys: ``train_images``, ``train_labels``, ``test_images``, ``test_labels``; or ``x_train``, ``y_train``,
    ``x_test``, ``y_test``; or ``images``, ``labels``, of which an evenly spread ``test_fraction`` is held out. Labels
    may be absent. The number of classes is the largest label of the file plus one.

    Args:
      path: the file; images uint8 ``[N, H, W]`` or ``[N, H, W, C]`` with C 1 or 3; labels integers ``[N]``, ``[N, 1]``.
      split: ``"train"`` or ``"test"``, or a part of one such as ``"train[:90%]"``.
      test_fraction: share of ``images`` that is for testing, in [0, 1); without effect when the file has its own split.

    Raises:
      UserError: no such file, not an npz, missing keys, wrong dtype, rank, length or values.
    """
    part = parse_split(split, "arrays")
    check_test_fraction(test_fraction, "arrays")
    path = os.fspath(path)
    images, labels, classes = _select(_load(path), part, path, test_fraction)
    chosen = split_slice(split, len(images))
    total = len(images)
    images = np.ascontiguousarray(images[chosen])
    check_not_empty(len(images), split, f"arrays: {path}", total)
    spec = ImageSpec(*images.shape[1:], classes=classes)
    provenance = {"source": "arrays", "where": path, "split": split, "count": len(images)}
    name = pathlib.Path(path).stem
    return ArraySource(spec, name, provenance, images, None if labels is None else labels[chosen])


def _load(path: str) -> dict[str, Any]:
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"arrays: no file {path}")
    try:
        # NumPy leaves a file that it opened itself open when that is no npz.
        with open(file, "rb") as handle:
            content = np.load(handle, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise UserError(f"arrays: {path} holds one array, not an npz; write it with np.savez(path, images=...)")
            wanted = {key for keys in _SPLIT_KEYS for pair in keys.values() for key in pair}.union(_WHOLE_KEYS)
            return {key: content[key] if key in wanted else None for key in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else "it is no npz, or a damaged one"
        raise UserError(f"arrays: can't read {path}: {reason}; write it with np.savez(path, images=...)") from error


def _select(content: dict, part: str, path: str, test_fraction: float):
    """The images and int32 labels of the asked-for part, and the number of classes of the whole file."""
    for keys in _SPLIT_KEYS:
        if keys["train"][0] in content or keys["test"][0] in content:
            image_key, label_key = keys[part]
            if image_key not in content:
                raise UserError(f"arrays: {path} has no {image_key} for split {part!r}; found: {_found(content)}")
            halves = {name: _labels(content, label, image, path) for name, (image, label) in keys.items()}
            present = [half for half in halves.values() if half is not None and len(half)]
            classes = max((int(half.max()) + 1 for half in present), default=0)
            if halves[part] is None and classes:
                raise UserError(f"arrays: {path} has labels for one split but no {label_key}; found: {_found(content)}")
            return _images(content[image_key], image_key, path), halves[part], classes
    image_key, label_key = _WHOLE_KEYS
    if image_key not in content:
        raise UserError(f"arrays: {path} has neither images nor train_images nor x_train; found: {_found(content)}")
    images, labels = _images(content[image_key], image_key, path), _labels(content, label_key, image_key, path)
    classes = int(labels.max()) + 1 if labels is not None and len(labels) else 0
    chosen = held_out(len(images), test_fraction) == (part == "test")
    return images[chosen], None if labels is None else labels[chosen], classes


def _found(content: dict) -> str:
    return ", ".join(content) or "nothing"


def _images(images: np.ndarray, key: str, path: str) -> np.ndarray:
    if images.dtype != np.uint8:
        raise UserError(f"arrays: {key} of {path} is {images.dtype}; images must be uint8 in 0..255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"arrays: {key} of {path} has shape {list(images.shape)}; expected [N, H, W] or [N, H, W, C] with C 1 or 3"
        )
    return images


def _labels(content: dict, key: str, image_key: str, path: str) -> np.ndarray | None:
    """int32 ``[N]``, or None when the file has none under ``key``."""
    labels = content.get(key)
    if labels is None:
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"arrays: {key} of {path} is {labels.dtype}{list(labels.shape)}; labels must be integers [N]")
    if image_key in content and len(labels) != len(content[image_key]):
        raise UserError(f"arrays: {path} has {len(labels)} {key} for {len(content[image_key])} {image_key}")
    if len(labels) and labels.min() < 0:
        raise UserError(f"arrays: {key} of {path} has the value {labels.min()}; labels count from 0")
    return labels.astype(np.int32)
