"""Images from a TensorFlow Datasets (TFDS) set, read from array_record files without TensorFlow."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
from PIL import Image

from genjax.data import preparing
from genjax.data.base import Source, check_not_empty
from genjax.data.folder import crop_resize
from genjax.types import ImageSpec, UserError

# Sets whose builder stores bits, not 0..255; every family takes 255 for white.
_WHITE = {"binarized_mnist": 1}


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSource(Source):
    """Records that are decoded when they are asked for.

    Attributes:
      records: TFDS's random-access data source.
      size: side of the square that images are cropped and resized to, or None when all have the same size already.
      white: the stored value of white, which becomes 255.
    """

    records: Any
    size: int | None
    white: int = 255

    def __len__(self) -> int:
        return len(self.records)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """See ``Source.gather``; raises ``UserError`` when an example has no label (a hidden test label)."""
        examples = self.records.__getitems__([int(index) for index in indices])
        images = np.empty((len(examples), *self.spec.shape), np.uint8)
        for row, example in enumerate(examples):
            image = example["image"]
            images[row] = image if self.size is None else _resize(image, self.size)
        images *= np.uint8(255 // self.white)
        batch: dict[str, np.ndarray] = {"image": images}
        if self.spec.classes:
            batch["label"] = np.array([example["label"] for example in examples], np.int32)
            if len(examples) and batch["label"].min() < 0:
                raise UserError(f"tfds: split {self.provenance['split']!r} of {self.name} keeps its labels hidden")
        return batch


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    grey = image.shape[-1] == 1
    resized = np.asarray(crop_resize(Image.fromarray(image[..., 0] if grey else image), size))
    return resized[..., None] if grey else resized


def tfds(name: str, split: str, data_dir: str | None = None, size: int | None = None) -> RecordSource:
    """Any TFDS set with a feature ``image``; its feature ``label``, if it is one of classes, gives the labels.

    Never touches the network. A set that isn't prepared yet is prepared when its original files are in place and
    TensorFlow is installed (in a process of its own); see ``experiments/prepare.py``. binarized_mnist, whose builder
    stores 0 and 1, comes as 0 and 255.

    Args:
      name: name in TFDS, with a config if it has several: ``"fashion_mnist"``, ``"emnist/letters"``.
      split: a split in TFDS's notation: ``"train"``, ``"test"``, ``"train[:90%]"``, ``"train+validation"``.
      data_dir: TFDS's folder; None means $TFDS_DATA_DIR or else ~/tensorflow_datasets.
      size: crop the centre square and resize it (Lanczos) to this side in pixels; needed when the images vary in size.

    Raises:
      UserError: unknown set, config or split; set not prepared; no feature ``image`` of 8 bits and 1 or 3 channels;
        images of varying size without ``size``; hidden labels (when they are read).
    """
    if size is not None and (not isinstance(size, int) or size < 1):
        raise UserError(f"tfds: size is {size!r}; it must be a positive number of pixels, or None")
    root = preparing.data_root(data_dir)
    builder = preparing.open_builder(name, root)
    if not preparing.is_prepared(builder):
        preparing.prepare_if_possible(builder, name, root)
        builder = preparing.open_builder(name, root)
    spec = _image_spec(builder.info.features, name, size)
    records = _open_split(builder, name, split)
    check_not_empty(len(records), split, f"tfds: {name}", builder.info.splits.total_num_examples)
    provenance = {
        "source": "tfds",
        "where": str(builder.data_path),
        "set": name,
        "version": str(builder.version),
        "split": split,
        "count": len(records),
        "size": size,
    }
    return RecordSource(spec, name.replace("/", "_"), provenance, records, size, _WHITE.get(builder.name, 255))


def _image_spec(features: Any, name: str, size: int | None) -> ImageSpec:
    import tensorflow_datasets

    image = features["image"] if "image" in features else None
    if image is None or len(image.shape or ()) != 3 or image.np_dtype != np.uint8 or image.shape[2] not in (1, 3):
        found = ", ".join(f"{key} {value.shape}" for key, value in features.items())
        raise UserError(f"tfds: {name} has no uint8 feature 'image' [H, W, C] with C 1 or 3; its features: {found}")
    height, width, channels = image.shape
    if size is None and None in (height, width):
        raise UserError(
            f"tfds: the images of {name} vary in size; set size= to crop and resize them, or save them as files and "
            "use the source folder with size="
        )
    label = features["label"] if "label" in features else None
    names = ()
    if isinstance(label, tensorflow_datasets.features.ClassLabel) and label.num_classes:
        names = tuple(label.names)
    return ImageSpec(size or height, size or width, channels, len(names), names)


def _open_split(builder: Any, name: str, split: str) -> Any:
    # TFDS's note that OpenCV would decode faster is none of the user's business.
    logging.getLogger("absl").addFilter(lambda record: "OpenCV is not installed" not in str(record.msg))
    try:
        return builder.as_data_source(split)
    except NotImplementedError as error:
        raise UserError(
            f"tfds: {name} in {builder.data_path} is stored as {builder.info.file_format.value}, which only TensorFlow "
            "reads; remove that folder and prepare the set again as array_record"
        ) from error
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(
            f"tfds: {name} has no split {split!r}; its splits: {', '.join(sorted(builder.info.splits))}, "
            "or parts of them such as train[:90%]"
        ) from error
