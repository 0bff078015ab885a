"""The leaves of a state as a checkpoint knows them: by path, each with what is compared before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def named(tree: Any) -> dict[str, Any]:
    """The leaves by path, ``a/b/0``, in the order of flattening; raises ValueError where two have the same."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
    if len(found) != len(pairs):
        raise ValueError("two leaves of the state have the same path; keys must not contain '/' or mix 0 and '0'")
    return found


def describe(leaf: Any) -> str:
    """``float32[3,4]``."""
    return f"{jnp.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def is_empty(description: str) -> bool:
    """Whether an array of that description has no elements."""
    return "0" in description.partition("[")[2].rstrip("]").split(",")


def with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a leaf and where it goes, which is the first device unless it says otherwise."""
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


def differences(stored: Mapping[str, str], abstract: Any, *, partial: bool) -> list[str]:
    """What is wrong with descriptions by path, compared with a tree; ``partial`` allows paths the tree lacks."""
    wanted = {name: describe(leaf) for name, leaf in named(abstract).items()}
    found = []
    for name, text in wanted.items():
        if name not in stored:
            found.append(f"{name} is not in the checkpoint")
        elif stored[name] != text:
            found.append(f"{name} is {stored[name]} in the checkpoint but {text} in this model")
    if not partial:
        found += [f"{name} is only in the checkpoint" for name in stored if name not in wanted]
    return found
