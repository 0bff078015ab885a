"""What reference images are to a feature network, kept in the user's cache folder under what it was made of."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def cached(facts: Mapping[str, Any], compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of ``compute``, from a file where one was made of exactly these facts.

    Anything else in the facts is another file, so that nothing stale is ever read. A folder that can't be written, or a
    file that can't be read, costs time alone.

    Args:
      facts: JSON-able, everything that the arrays depend on.
      compute: makes them.
    """
    text = json.dumps(facts, sort_keys=True)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = home / "genjax" / "reference" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            if str(kept["facts"]) == text:
                return {name: kept[name] for name in kept.files if name != "facts"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or cut short
    result = compute()
    arrays: dict[str, Any] = {"facts": np.array(text), **result}
    out = io.BytesIO()
    np.savez(out, **arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_bytes(out.getvalue())
        partial.replace(path)
    except OSError:
        pass
    return result
