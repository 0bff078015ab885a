"""The interface of a data source, the one that holds its images in memory, and the notion of a split."""

from __future__ import annotations

import abc
import dataclasses
import re
from typing import Any

import numpy as np

from genjax.types import ImageSpec, UserError

_CHUNK = 1024
_SPLIT = re.compile(r"(?P<name>train|test|all)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """What each image of a set was made of, where that is known.

    Attributes:
      names: one for each factor, such as ``"scale"``.
      sizes: how many values each can have.
      values: int32 ``[N, F]``, the value of each factor in [0, size).

    Raises:
      ValueError: they contradict each other.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    values: np.ndarray

    def __post_init__(self):
        if self.values.dtype != np.int32 or self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            found = f"{self.values.dtype}{list(self.values.shape)}"
            raise ValueError(f"factor values are {found}, expected int32 [N, {len(self.names)}]")
        if len(self.sizes) != len(self.names):
            raise ValueError(f"{len(self.names)} factors have {len(self.sizes)} sizes")
        if (self.values < 0).any() or (self.values >= np.array(self.sizes)).any():
            raise ValueError(f"factor values lie outside [0, size) of sizes {self.sizes}")


@dataclasses.dataclass(frozen=True, eq=False)
class Source(abc.ABC):
    """One split of a data set: images by index, nothing about their order or scaling.

    Attributes:
      spec: what the images are.
      name: short name for tables and logs, such as ``"mnist"``.
      provenance: where the images come from, as JSON-able values: source, where, split, count, and version or sha256.
      factors: what each image was made of, or None where nobody knows.
    """

    spec: ImageSpec
    name: str
    provenance: dict[str, Any]
    factors: Factors | None = dataclasses.field(default=None, kw_only=True)

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of all images as uint8, whether or not they are in memory."""
        return len(self) * self.spec.pixels

    @abc.abstractmethod
    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at ``indices``.

        Args:
          indices: integers ``[n]`` in ``[0, len(self))``, in any order, repeats allowed.

        Returns:
          ``image`` uint8 ``[n, H, W, C]`` and, only when ``spec.classes > 0``, ``label`` int32 ``[n]``.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource(Source):
    """A source whose images are in memory.

    Attributes:
      images: uint8 ``[N, H, W, C]``.
      labels: int32 ``[N]`` in ``[0, classes)``, or None when the images have no labels.

    Raises:
      ValueError: the arrays contradict ``spec`` or each other.
    """

    images: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.shape[1:] != self.spec.shape:
            found = f"{self.images.dtype}{list(self.images.shape)}"
            raise ValueError(f"images are {found}, expected uint8 [N, H, W, C] of {self.spec.shape}")
        if self.factors is not None and len(self.factors.values) != len(self.images):
            raise ValueError(f"{len(self.factors.values)} rows of factors for {len(self.images)} images")
        if (self.labels is None) != (self.spec.classes == 0):
            raise ValueError(f"labels {'missing' if self.labels is None else 'given'} with {self.spec.classes} classes")
        if self.labels is None:
            return
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels are {self.labels.dtype}{list(self.labels.shape)}, expected int32[{len(self)}]")
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < self.spec.classes:
            raise ValueError(f"labels lie outside [0, {self.spec.classes})")

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        batch = {"image": self.images[indices]}
        if self.labels is not None:
            batch["label"] = self.labels[indices]
        return batch


def in_memory(source: Source, budget_bytes: int) -> Source:
    """``source`` with its images decoded into memory when they fit, else ``source`` as it is.

    Decoding everything is also the full check of the files: what is unreadable is found here, before training.

    Args:
      source: any source; one that is in memory already comes back unchanged.
      budget_bytes: the largest ``source.nbytes`` that is loaded.

    Raises:
      UserError: an image can't be decoded (names the file).
    """
    if isinstance(source, ArraySource) or source.nbytes > budget_bytes:
        return source
    images = np.empty((len(source), *source.spec.shape), np.uint8)
    labels = np.empty(len(source), np.int32) if source.spec.classes else None
    for start in range(0, len(source), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(source)))
        batch = source.gather(np.arange(part.start, part.stop, dtype=np.int64))
        images[part] = batch["image"]
        if labels is not None:
            labels[part] = batch["label"]
    return ArraySource(source.spec, source.name, source.provenance, images, labels, factors=source.factors)


def parse_split(split: str, where: str, accepted: tuple[str, ...] = ("train", "test")) -> str:
    """``"train"`` or ``"test"`` of a split such as ``"train[:90%]"``; also ``"all"`` where that is accepted.

    Raises:
      UserError: anything else, naming ``where`` it was asked for.
    """
    match = _SPLIT.fullmatch(split) if isinstance(split, str) else None
    if not match or match["name"] not in accepted:
        names = f"{', '.join(accepted[:-1])} or {accepted[-1]}"
        raise UserError(f"{where}: unknown split {split!r}; use {names}, or a part such as train[:90%]")
    return match["name"]


def split_slice(split: str, count: int) -> slice:
    """The part of ``count`` examples that ``split`` names: counts or per cent (rounded), negative from the end."""

    def position(text: str | None, default: int) -> int:
        if text is None:
            return default
        value = round(count * int(text[:-1]) / 100) if text.endswith("%") else int(text)
        return max(0, min(count, value + count if value < 0 else value))

    match = _SPLIT.fullmatch(split)
    if match is None:
        raise ValueError(f"split {split!r} did not go through parse_split")
    return slice(position(match["start"], 0), position(match["stop"], count))


def held_out(count: int, test_fraction: float) -> np.ndarray:
    """bool ``[count]``: which of ``count`` examples in order are for testing, evenly spread, the last of each stretch.

    With ``test_fraction`` 0.1 these are examples 9, 19, 29, ...: adding examples at the end moves none of them.
    """
    # The small shift makes 10 * 0.1 count as a whole one.
    boundaries = np.floor(np.arange(count + 1) * test_fraction + 1e-9)
    return boundaries[1:] > boundaries[:-1]


def check_test_fraction(test_fraction: float, where: str) -> None:
    """Raises ``UserError`` unless ``test_fraction`` is in [0, 1)."""
    if not 0 <= test_fraction < 1:
        raise UserError(f"{where}: test_fraction is {test_fraction!r}; it must be at least 0 and below 1")


def check_not_empty(count: int, split: str, where: str, total: int) -> None:
    """Raises ``UserError`` when a split came out empty."""
    if count == 0:
        raise UserError(f"{where}: split {split!r} has no images (of {total} in all); ask for a larger part")
