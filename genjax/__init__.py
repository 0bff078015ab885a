"""Image generation with JAX and Flax: model families behind one experiment runner."""
