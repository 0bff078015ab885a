"""Images from a folder of image files."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np
from PIL import Image, ImageOps

from genjax.data.base import (
    Source,
    check_not_empty,
    check_test_fraction,
    held_out,
    parse_split,
    split_slice,
)
from genjax.types import ImageSpec, UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_GREY_MODES = ("L", "1")
_ORIENTATION = 0x0112  # EXIF tag; values from 5 exchange width and height


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource(Source):
    """Image files that are decoded when they are asked for.

    Attributes:
      paths: one file an example.
      labels: int32 ``[N]``, or None.
      size: side of the square that images are cropped and resized to, or None when all have the same size already.
    """

    paths: tuple[pathlib.Path, ...]
    labels: np.ndarray | None
    size: int | None

    def __len__(self) -> int:
        return len(self.paths)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """See ``Source.gather``; raises ``UserError`` with the path of a file that can't be decoded."""
        images = np.empty((len(indices), *self.spec.shape), np.uint8)
        for row, index in enumerate(indices):
            images[row] = _decode(self.paths[index], self.spec, self.size)
        batch = {"image": images}
        if self.labels is not None:
            batch["label"] = self.labels[indices]
        return batch


def folder(path: str, split: str, size: int | None = None, test_fraction: float = 0.1) -> FolderSource:
    """A folder of png, jpg, webp or bmp files: one sub-folder a class, or all images directly in it (no labels).

    Class ids follow the sorted names of the sub-folders. If the sub-folders are ``train`` and ``test``, they are the
    splits; otherwise an evenly spread ``test_fraction`` of each class, by sorted file name, is for testing. Examples
    come with the classes evenly mixed, so that a part such as ``train[:10%]`` holds all of them. Images are RGB unless
    every one is grey; transparent pixels lie on white; the orientation that a camera noted is applied.

    Args:
      path: the folder.
      split: ``"train"`` or ``"test"``, or a part of one such as ``"train[:90%]"``.
      size: crop the centre square and resize it (Lanczos) to this side in pixels; None takes the images as they are.
      test_fraction: share of each class that is for testing, in [0, 1).

    Raises:
      UserError: folder missing or without images, a file that is no image (its path), sizes that differ while ``size``
        is None (two of the files).
    """
    part = parse_split(split, "folder")
    check_test_fraction(test_fraction, "folder")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise UserError(f"folder: size is {size!r}; it must be a positive number of pixels, or None")
    root = pathlib.Path(os.fspath(path)).expanduser()
    if not root.is_dir():
        raise UserError(f"folder: no folder {root}")
    splits, class_names = _list_splits(root, test_fraction)
    every = [file for files in splits.values() for file, _ in files]
    height, width, channels = _read_headers(every, size)
    spec = ImageSpec(height, width, channels, len(class_names), class_names)
    files = _mix_classes(splits[part])[split_slice(split, len(splits[part]))]
    check_not_empty(len(files), split, f"folder: {root}", len(every))
    labels = np.array([label for _, label in files], np.int32) if class_names else None
    provenance = {"source": "folder", "where": str(root), "split": split, "count": len(files), "size": size}
    return FolderSource(spec, root.resolve().name, provenance, tuple(file for file, _ in files), labels, size)


def _list_splits(root: pathlib.Path, test_fraction: float) -> tuple[dict[str, list], tuple[str, ...]]:
    """``{"train": [(file, label), ...], "test": ...}`` in sorted order, and the class names (empty: no labels)."""
    names = {folder.name for folder in _subfolders(root)}
    if names != {"train", "test"}:
        classes = _list_classes(root)
        splits = {"train": [], "test": []}
        for label, files in enumerate(classes.values()):
            for file, test in zip(files, held_out(len(files), test_fraction), strict=True):
                splits["test" if test else "train"].append((file, label))
        return splits, tuple(filter(None, classes))
    halves = {part: _list_classes(root / part) for part in ("train", "test")}
    if set(halves["train"]) != set(halves["test"]):
        odd = ", ".join(name or "images without a class" for name in sorted(set(halves["train"]) ^ set(halves["test"])))
        raise UserError(f"folder: {root}/train and {root}/test must have the same classes; only one of them has: {odd}")
    splits = {
        part: [(file, label) for label, files in enumerate(classes.values()) for file in files]
        for part, classes in halves.items()
    }
    return splits, tuple(filter(None, halves["train"]))


def _subfolders(root: pathlib.Path) -> list[pathlib.Path]:
    hidden = (".", "__")
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(hidden))


def _list_classes(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """``{class name: sorted files}``, or ``{"": files}`` for images that lie directly in ``root``."""

    def images(place: pathlib.Path) -> list[pathlib.Path]:
        return sorted(
            entry
            for entry in place.iterdir()
            if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
        )

    direct, classes = images(root), {place.name: images(place) for place in _subfolders(root)}
    if direct and any(classes.values()):
        raise UserError(f"folder: {root} has images both in it ({direct[0].name}) and in sub-folders; keep one kind")
    if direct:
        return {"": direct}
    if not any(classes.values()):
        raise UserError(f"folder: no images in {root} or its sub-folders; accepted: {', '.join(SUFFIXES)}")
    for name, files in classes.items():
        if not files:
            raise UserError(f"folder: no images in {root / name}; fill this class or remove it")
    return classes


def _mix_classes(files: list) -> list:
    """The files with each class spread evenly over the list, in the same order whatever the file system says."""
    counts = np.bincount([label for _, label in files]) if files else []
    rank = dict.fromkeys(range(len(counts)), 0)
    keyed = []
    for file, label in files:
        keyed.append(((rank[label] + 0.5) / counts[label], label, file))
        rank[label] += 1
    return [(file, label) for _, label, file in sorted(keyed)]


def _read_headers(files: list[pathlib.Path], size: int | None) -> tuple[int, int, int]:
    """Height, width and channels that all files share; opens every file."""
    first, grey, common = None, True, (0, 0)
    for file in files:
        try:
            with Image.open(file) as image:
                width, height, mode = *image.size, image.mode
                turned = image.getexif().get(_ORIENTATION, 1) >= 5
        except Exception as error:  # decoders raise many kinds
            raise UserError(f"folder: can't read {file} as an image ({_reason(error)})") from error
        if mode.startswith(("I", "F")):
            raise UserError(f"folder: {file} has more than 8 bits a channel (mode {mode}); save it with 8 bits")
        if turned:
            width, height = height, width
        grey = grey and mode in _GREY_MODES
        if first is None:
            first, common = file, (height, width)
        if size is None and (height, width) != common:
            raise UserError(
                f"folder: {first} is {common[1]}x{common[0]} but {file} is {width}x{height} (width x height); "
                "set size= to crop and resize them all"
            )
    height, width = (size, size) if size else common
    return height, width, 1 if grey else 3


def _decode(file: pathlib.Path, spec: ImageSpec, size: int | None) -> np.ndarray:
    """uint8 ``[H, W, C]`` of one file."""
    try:
        with Image.open(file) as image:
            image = to_mode(ImageOps.exif_transpose(image), "L" if spec.channels == 1 else "RGB")
            if size is not None:
                image = crop_resize(image, size)
            return np.asarray(image).reshape(spec.shape)
    except Exception as error:  # decoders raise many kinds
        raise UserError(f"folder: can't decode {file} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """``image`` in ``mode`` "L" or "RGB", with transparent pixels on white."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def crop_resize(image: Image.Image, size: int) -> Image.Image:
    """The centre square of ``image``, resized to ``size`` with a Lanczos filter."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return image if side == size else image.resize((size, size), Image.Resampling.LANCZOS)
