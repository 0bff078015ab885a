"""What a stored file says about itself: the number of its format, the config and the versions that it comes from."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from genjax.types import UserError

_PACKAGES = (
    "genjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "ml-collections",
    "tensorboardX",
    "tensorflow-datasets",
    "pillow",
)


@functools.cache
def versions() -> Mapping[str, str]:
    """Of Python and of the packages that a run depends on, without those that are not installed."""
    found = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    return {"python": platform.python_version(), **found}


def manifest(format: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """``{"format", "config", "versions"}``: what every manifest has, whatever else it describes."""
    return {"format": format, "config": dict(config), "versions": dict(versions())}


def check_format(found: Mapping[str, Any], newest: int, what: str) -> None:
    """Raises UserError, which begins with ``what``, where a manifest is of a later format than ``newest``.

    One without a number is from before there were numbers, and passes.
    """
    number = found.get("format", 0)
    if not isinstance(number, int) or number > newest:
        writer = found.get("versions", {}).get("genjax", "a later version")
        raise UserError(f"{what} is of format {number}, written by genjax {writer}; accepted: up to {newest}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
