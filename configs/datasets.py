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


def folder(path: str, size: int | None = None, augment: tuple[str, ...] = ()) -> ConfigDict:
    """Images in one sub-folder per class."""
    options = {"path": path, "size": config_dict.placeholder(int), "test_fraction": 0.1}
    section = ConfigDict({"source": "folder", "train": "train", "test": "test", "augment": augment, "options": options})
    if size is not None:
        section.options.size = size
    return section
