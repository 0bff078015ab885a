"""A prepared TFDS set of a stock name with a few random images, made without TensorFlow and without a network.

As a program: ``python tests/tiny_tfds.py NAME FOLDER TRAIN TEST``.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path


def prepare(name: str, folder: Path, train: int, test: int) -> None:
    """Prepares mnist or fashion_mnist in ``folder``, in a process of its own, since TFDS leaves files open."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, name, str(folder), str(train), str(test)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def main(name: str, folder: str, train: str, test: str) -> None:
    import numpy as np
    import tensorflow_datasets as tfds
    from PIL import Image
    from tensorflow_datasets.core import registered

    stock = tfds.builder_cls(name)

    with registered.skip_registration():

        class Tiny(stock):
            """The stock set with other images."""

            def _split_generators(self, dl_manager):
                del dl_manager
                return {"train": self._generate(int(train)), "test": self._generate(int(test))}

            def _generate(self, count):
                random = np.random.default_rng(count)
                for index in range(count):
                    buffer = io.BytesIO()
                    Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8)).save(buffer, "PNG")
                    yield index, {"image": buffer.getvalue(), "label": index % 10}

    Tiny.name = name
    builder = Tiny(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    assert builder.info.splits["test"].num_examples == int(test)


if __name__ == "__main__":
    main(*sys.argv[1:])
