"""Array operations whose lowering depends on the platform, each with one definition."""

from genjax.ops.conv import conv, conv_transpose

__all__ = ["conv", "conv_transpose"]
