"""CIFAR-10's binary archive from batches kept as lossless image tiles.

The published archive can't be had everywhere, and it can't be packed again bit for bit. Its six binary batches can:
each is checked against the sha256 of the original member, so the pixels, labels and their order are the published ones.
Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

from genjax.types import UserError

ARCHIVE = "cifar-10-binary.tar.gz"
_FOLDER = "cifar-10-batches-bin"
_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def is_tiled(folder: pathlib.Path) -> bool:
    """Whether ``folder`` has the tiled layout: ``<batch>.webp`` for all six batches, and ``labels.npz``."""
    return all((folder / name).is_file() for name in ["labels.npz", *(f"{batch}.webp" for batch in _SHA256)])


def build_archive(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Writes ``target``, an archive with the members of the published one, from tiled batches.

    Args:
      folder: ``<batch>.webp``, lossless RGB 3200x3200: 100 x 100 tiles of 32 x 32 in row order; ``labels.npz`` with
        ``<batch>_labels`` uint8 ``[10000]``.
      target: the .tar.gz to write.

    Raises:
      UserError: a batch is unreadable or isn't the original.
    """
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        for batch, expected in _SHA256.items():
            content = _read_batch(folder, batch)
            if hashlib.sha256(content).hexdigest() != expected:
                raise UserError(f"prepare: {folder / batch}.webp and labels.npz do not give the original {batch}.bin")
            _add(archive, f"{_FOLDER}/{batch}.bin", content)
        _add(archive, f"{_FOLDER}/batches.meta.txt", ("\n".join(_CLASSES) + "\n").encode())


def _read_batch(folder: pathlib.Path, batch: str) -> bytes:
    """For each image its label byte, then its 3,072 values, channel by channel."""
    file = folder / f"{batch}.webp"
    try:
        with Image.open(file) as image:
            grid = np.asarray(image.convert("RGB"))
        with np.load(folder / "labels.npz", allow_pickle=False) as labels:
            labels = labels[f"{batch}_labels"].astype(np.uint8)
        images = grid.reshape(100, 32, 100, 32, 3).transpose(0, 2, 4, 1, 3).reshape(10000, 3072)
        return np.concatenate([labels.reshape(10000, 1), images], axis=1).tobytes()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"prepare: can't read {file} or its labels: {' '.join(str(error).split())}") from error


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
