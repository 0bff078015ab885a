"""The table that the drills print, and its place in the documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- drills: begin -->", "<!-- drills: end -->"


@dataclasses.dataclass
class Row:
    """One fault: how often it was tried, how often the run ended as an undisturbed one, what it cost."""

    fault: str
    tried: int = 0
    survived: int = 0
    lost: str = ""

    @property
    def whole(self) -> bool:
        return self.survived == self.tried


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| fault | times tried | times survived | what was lost |", "|---|---|---|---|"]
    lines += [f"| {row.fault} | {row.tried} | {row.survived} | {row.lost} |" for row in rows]
    return "\n".join(lines)


def write_between_markers(path: Path, text: str) -> None:
    """Puts the text between the two marks of a file; raises ValueError where they are missing."""
    content = path.read_text()
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
