"""A small line chart as SVG, in the colours of the page around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 24, 34  # margins
_COLOURS = 6


def chart(name: str, series: Sequence[tuple[int, Sequence[Sequence[float]]]]) -> str:
    """A metric against the step, a line for each seed.

    Args:
      name: of the metric.
      series: for each seed its points (step, value); values that are not finite are left out.
    """
    kept = [(seed, [(x, y) for x, y in points if math.isfinite(y)]) for seed, points in series]
    every = [point for _, points in kept for point in points]
    if not every:
        return ""
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    bottom, top = min(y for _, y in every), max(y for _, y in every)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> str:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - bottom) / (top - bottom) if top > bottom else 0.5
        return f"{_LEFT + wide * across:.1f},{_TOP + high * (1.0 - up):.1f}"

    lines = [
        f'<polyline fill="none" stroke="var(--c{number % _COLOURS})" stroke-width="1.5" '
        f'points="{" ".join(place(x, y) for x, y in points)}"><title>seed {escape(str(seed))}</title></polyline>'
        for number, (seed, points) in enumerate(kept)
    ]
    shown = ", ".join(str(seed) for seed, _ in kept)
    labels = [
        _text(_LEFT, 14, "start", name),
        _text(_LEFT - 4, _TOP + 8, "end", f"{top:.4g}"),
        _text(_LEFT - 4, _HEIGHT - _BOTTOM, "end", f"{bottom:.4g}"),
        _text(_LEFT, _HEIGHT - 18, "start", f"{left:,.0f}"),
        _text(_WIDTH - _RIGHT, _HEIGHT - 18, "end", f"{right:,.0f}"),
        _text(_LEFT + wide // 2, _HEIGHT - 4, "middle", f"step; seeds {shown}" if len(kept) > 1 else "step"),
    ]
    frame = f'<rect x="{_LEFT}" y="{_TOP}" width="{wide}" height="{high}" fill="none" stroke="var(--line)"/>'
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(name, quote=True)} against the step">{frame}{"".join(lines)}{"".join(labels)}</svg>'
    )


def _text(x: int, y: int, anchor: str, words: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
