"""The ``data`` section of each data set."""

from __future__ import annotations

from ml_collections import ConfigDict, config_dict


def tfds(name: str, augment: tuple[str, ...] = ()) -> ConfigDict:
    """A set of TensorFlow Datasets by name, such as mnist, fashion_mnist or cifar10."""
    return ConfigDict(
        {
            "source": "tfds",
            "train": "train",
            "test": "test",
            "augment": augment,
            # data_dir: where TFDS keeps its sets; none for its own default
            "options": {"name": name, "data_dir": config_dict.placeholder(str)},
        }
    )


def digits(augment: tuple[str, ...] = ()) -> ConfigDict:
    """Scikit-learn's handwritten digits, 8x8, part of this package."""
    return ConfigDict({"source": "digits", "train": "train", "test": "test", "augment": augment, "options": {}})


def stacked(base: str = "mnist") -> ConfigDict:
    """Three digits of a grey set as the channels of an image, 1000 modes; of mnist, or of the embedded digits."""
    options = {"base": base, "data_dir": config_dict.placeholder(str)}
    options |= {"train_count": 128_000, "test_count": 26_000, "seed": 0}
    return ConfigDict({"source": "stacked", "train": "train", "test": "test", "augment": (), "options": options})


def folder(path: str, size: int | None = None, augment: tuple[str, ...] = ()) -> ConfigDict:
    """Images in one sub-folder per class."""
    options = {"path": path, "size": config_dict.placeholder(int), "test_fraction": 0.1}
    section = ConfigDict({"source": "folder", "train": "train", "test": "test", "augment": augment, "options": options})
    if size is not None:
        section.options.size = size
    return section


def shapes() -> ConfigDict:
    """Squares, ellipses and hearts of known factors, computed; ``test`` is combinations that training has not seen."""
    options = {"size": 32, "scales": 6, "orientations": 20, "positions": 16, "colours": 0, "test_fraction": 0.2}
    return ConfigDict({"source": "shapes", "train": "train", "test": "test", "augment": (), "options": options})
