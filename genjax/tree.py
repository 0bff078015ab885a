"""Named paths, norms and tables over parameter trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genjax.types import Array


def path_name(path: tuple[Any, ...]) -> str:
    """``"encoder/conv_0/kernel"`` for a key path of ``jax.tree_util``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Every leaf under its path, in the tree's order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of what ``named_leaves`` makes of them: ``{"a/b": x}`` becomes ``{"a": {"b": x}}``."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def map_named(function, tree: Any) -> Any:
    """``function(name, leaf)`` at every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def norm(tree: Any) -> Array:
    """Euclidean norm of all leaves together, summed in float32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))


def size(tree: Any) -> int:
    """Number of values in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def lerp(a: Any, b: Any, weight: Array | float) -> Any:
    """``a + weight * (b - a)``; leaves that are not floating point are taken from ``b``."""

    def one(x, y):
        return x + weight * (y - x) if jnp.issubdtype(x.dtype, jnp.floating) else y

    return jax.tree.map(one, a, b)


def table(tree: Any) -> str:
    """Markdown table of every leaf: name, shape, dtype, number of values; then the total."""
    rows = [
        f"| {name} | {tuple(leaf.shape)} | {leaf.dtype} | {leaf.size:,} |" for name, leaf in named_leaves(tree).items()
    ]
    return "\n".join(
        ["| name | shape | dtype | values |", "|---|---|---|---:|", *rows, f"| total | | | {size(tree):,} |"]
    )
