"""From one value per example, in padded batches, to the mean over a split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class MaskedMean:
    """Exact mean of per-example values whatever the padding: sums in float64, divided once at the end.

    Raises:
      ValueError: a value is not shaped like the mask, so that it can't be one number per example.
    """

    def __init__(self):
        self._sums: dict[str, float] = {}
        self._squares: dict[str, float] = {}
        self._count = 0.0

    def add(self, values: Mapping[str, np.ndarray], mask: np.ndarray) -> None:
        """Adds a batch: values ``{name: [B]}``, mask ``[B]`` with 1 for a real example and 0 for padding."""
        mask = np.asarray(mask, np.float64)
        for name, value in values.items():
            value = np.asarray(value, np.float64)
            if value.shape != mask.shape:
                raise ValueError(f"{name} has shape {value.shape}; one value per example would be {mask.shape}")
            # A padded row may hold anything, NaN included; only real rows are looked at.
            real = value[mask > 0]
            self._sums[name] = self._sums.get(name, 0.0) + float(real.sum())
            self._squares[name] = self._squares.get(name, 0.0) + float(np.square(real).sum())
        self._count += float(mask.sum())

    @property
    def count(self) -> int:
        return int(self._count)

    def means(self) -> dict[str, float]:
        return {name: total / self._count for name, total in self._sums.items()}

    def standard_errors(self) -> dict[str, float]:
        """Standard error of each mean over the examples."""
        means = self.means()
        variance = {name: max(self._squares[name] / self._count - means[name] ** 2, 0.0) for name in means}
        return {name: float(np.sqrt(value / max(self._count - 1.0, 1.0))) for name, value in variance.items()}
