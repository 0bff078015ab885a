"""The range of noise levels that grids and training levels span."""

from __future__ import annotations

import jax

from genjax.processes.paths import Path, check_ascending

DEFAULT_SIGMA_MAX = 80.0
"""The largest noise level unless told otherwise (Karras et al. 2022, table 1); paths may reach infinity."""


def check_noise_range(sigma_min: float | None, sigma_max: float | None) -> None:
    """Raises ValueError unless ``noise_range`` can take these: positive, and ascending."""
    values = {"sigma_min": sigma_min, "sigma_max": sigma_max}
    check_ascending(**{name: value for name, value in values.items() if value is not None})


def noise_range(path: Path, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """The smallest and largest noise level that these settings leave of the path's own.

    Args:
      path: a path; its levels go from r(t_min) to r(t_max), which may be infinite.
      sigma_min: the smallest r; none for the path's.
      sigma_max: the largest r; none for ``DEFAULT_SIGMA_MAX``. The path's own wins where that is less.

    Raises:
      ValueError: the path has nothing in that range.
    """
    with jax.ensure_compile_time_eval():
        low, high = float(path.noise_level(path.t_min)), float(path.noise_level(path.t_max))
    smallest = low if sigma_min is None else max(low, sigma_min)
    largest = min(high, DEFAULT_SIGMA_MAX if sigma_max is None else sigma_max)
    if not smallest < largest:
        raise ValueError(
            f"sigma_min={sigma_min}, sigma_max={sigma_max} leave nothing of this path's noise levels; accepted: "
            f"sigma_min < sigma_max (none: {DEFAULT_SIGMA_MAX:g}), overlapping {low:.4g} to {high:.4g}"
        )
    return smallest, largest
