"""Evaluators that give pictures, always of the same latents and examples, so that progress can be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from genjax.evaluators.base import Context, Report, check_at_least, to_uint8
from genjax.evaluators.figures import grid, side_by_side
from genjax.rng import example_keys


@dataclasses.dataclass(frozen=True)
class Samples:
    """A grid of samples; a class a column when the data has classes.

    Attributes:
      num: images.
    """

    num: int = 60

    def __post_init__(self):
        check_at_least(1, num=self.num)

    def __call__(self, context: Context) -> Report:
        images = context.samples(context.seed, context.default_labels(self.num))
        columns = context.spec.classes if 2 <= context.spec.classes <= 20 else None
        return Report(images={"samples": grid(to_uint8(images), columns=columns)})


@dataclasses.dataclass(frozen=True)
class Reconstructions:
    """Rows of originals, each above its reconstruction.

    Attributes:
      num: originals.
    """

    num: int = 30

    def __post_init__(self):
        check_at_least(1, num=self.num)

    def __call__(self, context: Context) -> Report:
        reconstruct = context.extra("reconstruct", "reconstructions")
        batch = context.examples(self.num)
        images = reconstruct(context.state, context.place(batch), context.key("reconstruct"))
        return Report(images={"reconstructions": side_by_side(batch["image"], to_uint8(images))})


@dataclasses.dataclass(frozen=True)
class Interpolations:
    """Rows of images on the path between two points of latent space.

    Attributes:
      rows: paths.
      num: images along each.
    """

    rows: int = 6
    num: int = 10

    def __post_init__(self):
        check_at_least(1, rows=self.rows, num=self.num)

    def __call__(self, context: Context) -> Report:
        interpolate = context.extra("interpolate", "interpolations")
        batch = context.examples(self.rows)
        keys = example_keys(context.key("interpolate"), np.asarray(batch["index"]))
        images = np.asarray(interpolate(context.state, context.place(batch), context.place(keys), num=self.num))
        return Report(
            images={"interpolations": grid(to_uint8(images.reshape(-1, *images.shape[2:])), columns=self.num)}
        )


@dataclasses.dataclass(frozen=True)
class Traversals:
    """A row for each latent: what the decoder makes of an example's code when that latent alone goes from -2 to 2.

    The prior's standard deviation is 1. Rows are of the latents whose codes vary most over the split, that first.

    Attributes:
      rows: latents, at most.
      num: images along each.
      examples: whose codes are looked at; the picture starts from the first of them.
    """

    rows: int = 10
    num: int = 9
    examples: int = 250

    def __post_init__(self):
        check_at_least(1, rows=self.rows)
        check_at_least(2, num=self.num, examples=self.examples)

    def check(self, context: Context) -> None:
        """Raises UserError where the family has no codes."""
        self._functions(context)

    def _functions(self, context: Context) -> list[Callable[..., Any]]:
        return [context.extra(name, "traversals") for name in ("encode", "decode")]

    def __call__(self, context: Context) -> Report:
        encode, decode = self._functions(context)
        batch = context.examples(self.examples)
        codes = np.asarray(encode(context.state, context.place(batch), context.key("encode")))
        chosen = np.argsort(-codes.var(axis=0), kind="stable")[: self.rows]
        moved = np.tile(codes[0], (len(chosen), self.num, 1))
        moved[np.arange(len(chosen)), :, chosen] = np.linspace(-2.0, 2.0, self.num)
        moved = moved.reshape(-1, codes.shape[1])
        labels = np.full(len(moved), batch["label"][0] if "label" in batch else 0, np.int32)
        images = decode(context.state, context.place(moved), context.place(labels))
        return Report(images={"traversals": grid(to_uint8(images), columns=self.num)})
