"""Images computed from factors of variation, so that what each was made of is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from genjax.data.base import Factors, Source, check_not_empty, check_test_fraction, parse_split, split_slice
from genjax.data.order import MAX_EXAMPLES, epoch_indices
from genjax.data.procedural_shapes import SHAPES, draw, hues, turns
from genjax.types import ImageSpec, UserError

_ORDER = 0  # key of the permutation that orders every set
_CHUNK = 256  # images drawn at once: their arrays stay in the processor's cache
_SCALES = (0.15, 0.3)  # of the image's side
_CENTRES = (0.25, 0.75)  # of the image's side: at the largest scale every shape lies within the image


@dataclasses.dataclass(frozen=True, eq=False)
class ShapesSource(Source):
    """Shapes that are drawn when they are asked for.

    Attributes:
      grid: int64 ``[N]``, the number of each image among all combinations: its factors' values are the digits of that
        number, the first factor's the most significant and the base of each its size.
    """

    grid: np.ndarray
    factors: Factors = dataclasses.field(kw_only=True)

    def __len__(self) -> int:
        return len(self.grid)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        values = self.factors.values[indices]
        images = np.empty((len(values), *self.spec.shape), np.uint8)
        # Sorted by shape, since each has a formula of its own.
        for shape, name in enumerate(SHAPES):
            rows = np.flatnonzero(values[:, 0] == shape)
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                images[part] = self._draw(name, values[part])
        return {"image": images, "label": values[:, 0]}

    def _draw(self, shape: str, values: np.ndarray) -> np.ndarray:
        """uint8 ``[n, H, W, C]`` of factor values int ``[n, F]``, all of one shape."""
        size, sizes = self.spec.height, dict(zip(self.factors.names, self.factors.sizes, strict=True))
        value = dict(zip(self.factors.names, values.T, strict=True))
        scales = size * np.linspace(*_SCALES, sizes["scale"])
        right, down = (size * np.linspace(*_CENTRES, sizes[name])[value[name]] for name in ("position_x", "position_y"))
        turn = turns(sizes["orientation"])[value["orientation"]]
        cover = draw(shape, scales[value["scale"]], turn, np.stack([right, down], axis=1), size)[..., None]
        if "colour" in sizes:
            cover = cover * hues(sizes["colour"])[value["colour"]][:, None, None]
        return np.floor(cover * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)


def shapes(
    split: str,
    size: int = 32,
    scales: int = 6,
    orientations: int = 20,
    positions: int = 16,
    colours: int = 0,
    test_fraction: float = 0.2,
) -> ShapesSource:
    """A square, an ellipse or a heart on black, in every combination of its factors.

    After dSprites (Matthey et al. 2017), with edges that are smooth.

    The factors are ``shape``, also the label; ``scale``, the square root of the area, the same for all shapes, evenly
    from 0.15 to 0.3 of the image's side; ``orientation``, evenly around a full turn, counter-clockwise, so that squares
    and ellipses look the same after a quarter or half of it; ``position_x`` and ``position_y`` of the centre of mass,
    evenly from 0.25 to 0.75 of the side, right and down; and with colours ``colour``, hues evenly around the circle.
    Nothing is random: a combination is one image.

    The order of combinations is a fixed permutation, of which the first ``test_fraction`` are for testing: any part of
    a split has all values mixed.

    Args:
      split: ``"train"``, ``"test"`` or ``"all"``, or a part of one such as ``"train[:90%]"``.
      size: of the images in pixels, 16 to 64.
      scales, orientations, positions: values of these factors, at least 2; as many positions across as down.
      colours: values of the factor colour, at least 2, of RGB images; 0 for white shapes on grey images.
      test_fraction: share of all combinations that is for testing, in [0, 1).

    Raises:
      UserError: a setting out of range, more than 2**27 combinations, or an unknown or empty split.
    """
    part = parse_split(split, "shapes", ("train", "test", "all"))
    check_test_fraction(test_fraction, "shapes")
    if not 16 <= size <= 64:
        raise UserError(f"shapes: size is {size}; it must be 16 to 64 pixels")
    if (colours and colours < 2) or min(scales, orientations, positions) < 2:
        given = f"scales={scales}, orientations={orientations}, positions={positions}, colours={colours}"
        raise UserError(f"shapes: {given}; accepted: at least 2 of each, or colours=0 for grey images")
    sizes = {"shape": len(SHAPES), "scale": scales, "orientation": orientations}
    sizes |= {"position_x": positions, "position_y": positions} | ({"colour": colours} if colours else {})
    total = math.prod(sizes.values())
    if total > MAX_EXAMPLES:
        raise UserError(f"shapes: {total} combinations of factors; accepted: at most {MAX_EXAMPLES}")
    grid = np.asarray(epoch_indices(_ORDER, 0, total, np)).astype(np.int64)
    held = round(total * test_fraction)
    grid = {"test": grid[:held], "train": grid[held:], "all": grid}[part]
    grid = grid[split_slice(split, len(grid))]
    check_not_empty(len(grid), split, "shapes", total)
    values = np.stack(np.unravel_index(grid, tuple(sizes.values())), axis=1).astype(np.int32)
    spec = ImageSpec(size, size, 3 if colours else 1, len(SHAPES), tuple(SHAPES))
    provenance = {"source": "shapes", "where": "computed", "split": split, "count": len(grid), "factors": sizes}
    provenance |= {"size": size, "test_fraction": test_fraction}
    return ShapesSource(spec, "shapes", provenance, grid, factors=Factors(tuple(sizes), tuple(sizes.values()), values))
