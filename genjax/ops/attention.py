"""Attention over tokens, written as batched matrix products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def attention(q_BNHD: jax.Array, k_BMHD: jax.Array, v_BMHD: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v for each head (Vaswani et al. 2017, eq. 1).

    Args:
      q_BNHD: queries [B, N, heads, D], floating point.
      k_BMHD, v_BMHD: keys and values [B, M, heads, D].

    Returns:
      [B, N, heads, D] of the dtype of ``q_BNHD``; products are accumulated and the softmax taken in float32 at least.

    Raises:
      ValueError: the shapes do not fit together.
    """
    B, _, heads, D = q_BNHD.shape
    if k_BMHD.shape != v_BMHD.shape or (k_BMHD.shape[0], *k_BMHD.shape[2:]) != (B, heads, D):
        shapes = f"{q_BNHD.shape}, {k_BMHD.shape} and {v_BMHD.shape}"
        raise ValueError(f"attention: needs q [B, N, heads, D] and k, v [B, M, heads, D], got {shapes}")
    wide = jnp.promote_types(q_BNHD.dtype, jnp.float32)
    q_BHND, k_BHMD, v_BHMD = (x.swapaxes(1, 2) for x in (q_BNHD, k_BMHD, v_BMHD))
    q_BHND = (q_BHND.astype(wide) * D**-0.5).astype(q_BHND.dtype)
    logits_BHNM = jnp.einsum("bhnd,bhmd->bhnm", q_BHND, k_BHMD, preferred_element_type=wide)
    highest_BHN1 = lax.stop_gradient(jnp.max(logits_BHNM, axis=-1, keepdims=True))
    weights_BHNM = jnp.exp(logits_BHNM - highest_BHN1)
    # Divided after the product, by one number a query: no other pass over all pairs, nor in the gradient.
    total_BHN1 = jnp.sum(weights_BHNM, axis=-1, keepdims=True)
    values_BHND = jnp.einsum("bhnm,bhmd->bhnd", weights_BHNM.astype(v_BMHD.dtype), v_BHMD, preferred_element_type=wide)
    return (values_BHND / total_BHN1).astype(q_BNHD.dtype).swapaxes(1, 2)
