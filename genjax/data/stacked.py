"""Stacked digits: three images of digits as the three channels of one (Metz et al. 2017).

There are as many modes as numbers of three digits, and each is equally frequent up to chance, so that one can count
which of them a generator has learnt.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from genjax.data import embedded, records
from genjax.data.base import ArraySource, Source, check_not_empty, in_memory, parse_split, split_slice
from genjax.data.order import batch_indices
from genjax.types import ImageSpec, UserError

_BASE_BYTES = 2**30  # single digits are looked up three times an image, so they have to be in memory


@dataclasses.dataclass(frozen=True, eq=False)
class StackedSource(Source):
    """Images made of those of another source when they are asked for.

    Attributes:
      base: grey images with labels.
      rows: int32 ``[N, 3]``, which images of ``base`` are red, green and blue.
    """

    base: ArraySource
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """See ``Source.gather``; the label is the number whose digits are those of red, green and blue."""
        batch = self.base.gather(self.rows[indices].reshape(-1))
        height, width, channels = self.spec.shape
        images = batch["image"].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        places = self.base.spec.classes ** np.arange(channels - 1, -1, -1)
        labels = batch["label"].reshape(-1, channels) @ places
        return {"image": np.ascontiguousarray(images), "label": labels.astype(np.int32)}


def stacked(
    split: str,
    base: str = "mnist",
    data_dir: str | None = None,
    train_count: int = 128_000,
    test_count: int = 26_000,
    seed: int = 0,
) -> StackedSource:
    """Three digits of a split of another source, drawn anew for each image, as its red, green and blue.

    Which three is a function of (seed, split, number of the image) alone. Each channel goes through all of the base's
    images before it takes one again. The label is the number of three digits, of classes^3 (1000 for ten digits).

    Args:
      split: ``"train"`` or ``"test"``, or a part of one such as ``"train[:90%]"``; either is made of the base's own.
      base: ``"digits"``, the embedded 8x8 ones, or a set of TFDS of grey images with labels, such as ``"mnist"``.
      data_dir: TFDS's folder; None means $TFDS_DATA_DIR or else ~/tensorflow_datasets.
      train_count, test_count: images of the whole splits; 128,000 and 26,000 as Lin et al. 2018.
      seed: of the draws, at least 0.

    Raises:
      UserError: unknown or empty split, a count or seed out of range, a base that is not grey or has no labels, or what
        ``records.tfds`` raises.
    """
    part = parse_split(split, "stacked")
    for name, value, least in (("train_count", train_count, 1), ("test_count", test_count, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or not least <= value < 2**27:
            raise UserError(f"stacked: {name} is {value!r}; accepted: a whole number from {least} and below 2^27")
    source = embedded.digits(part) if base == "digits" else records.tfds(base, part, data_dir)
    if source.spec.channels != 1 or source.spec.classes < 1:
        found = f"images of {source.spec.shape} and {source.spec.classes} classes"
        raise UserError(f"stacked: base {base!r} has {found}; accepted: grey images with labels, as mnist or digits")
    digits = in_memory(source, _BASE_BYTES)
    if not isinstance(digits, ArraySource):
        raise UserError(f"stacked: base {base!r} has {source.nbytes} bytes; accepted: at most {_BASE_BYTES}")
    count = train_count if part == "train" else test_count
    rows = np.stack([batch_indices(3 * seed + c, 0, count, len(digits), np) for c in range(3)], axis=-1)
    rows = rows[split_slice(split, count)]
    check_not_empty(len(rows), split, f"stacked: {base}", count)
    spec = ImageSpec(source.spec.height, source.spec.width, 3, source.spec.classes**3, _names(source.spec))
    facts = {"of": base, "split": split, "count": len(rows), "whole": count, "seed": seed}
    provenance = {**source.provenance, "source": "stacked", "images_of_base": len(digits), **facts}
    return StackedSource(spec, f"stacked_{source.name}", provenance, digits, rows)


def _names(spec: ImageSpec) -> tuple[str, ...]:
    """Strings "000" to "999" where classes are called by one character, none otherwise."""
    names = spec.class_names
    if not names or any(len(name) != 1 for name in names):
        return ()
    return tuple(a + b + c for a in names for b in names for c in names)
