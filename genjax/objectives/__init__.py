"""Losses as pure functions that return one value per example."""
