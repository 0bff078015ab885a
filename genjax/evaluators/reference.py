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
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["facts"]) == text:
                return {name: arrays[name] for name in arrays.files if name != "facts"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or cut short
    result = compute()
    out = io.BytesIO()
    np.savez(out, facts=np.array(text), **result)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_bytes(out.getvalue())
        partial.replace(path)
    except OSError:
        pass
    return result
