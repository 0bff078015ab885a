"""Metrics: arrays in, numbers out, sums in float64."""
