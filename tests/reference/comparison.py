"""What the scripts beside this file share: cases, their comparison, the file of recorded numbers, the page's table."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


@dataclasses.dataclass(frozen=True)
class Case:
    """A metric, the package it is compared with, and both on the same inputs."""

    name: str
    package: str
    theirs: Callable[[], object]
    ours: Callable[[], object]
    tolerance: float = 1e-6

    @property
    def key(self) -> str:
        return self.name.replace(" ", "_").replace(",", "")


@dataclasses.dataclass(frozen=True)
class Record:
    """Where a script, ``tests/reference/<name>.py``, keeps its numbers.

    Attributes:
      name: of the script.
      recorded: the file beside it.
      also: packages whose versions are recorded too.
    """

    name: str
    recorded: Path
    also: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        return f"PYTHONPATH=. python tests/reference/{self.name}.py"

    @property
    def marks(self) -> tuple[str, str]:
        """What is around the table on the page."""
        return f"<!-- {self.name}: begin -->", f"<!-- {self.name}: end -->"

    def table(self) -> str:
        begin, end = self.marks
        return PAGE.read_text().split(begin)[1].split(end)[0].strip()

    def write(self, rows: Rows, inputs: Mapping[str, np.ndarray]) -> None:
        """The numbers with what they came from into the file, the table into the page."""
        packages = sorted({package for case, _, _ in rows for package in case.package.split(", ")} | {*self.also})
        about = {"command": self.command, "versions": {name: importlib.metadata.version(name) for name in packages}}
        numbers = {case.key: theirs for case, theirs, _ in rows}
        np.savez_compressed(self.recorded, about=np.array(json.dumps(about)), **inputs, **numbers)
        begin, end = self.marks
        before, rest = PAGE.read_text().split(begin)
        PAGE.write_text(f"{before}{begin}\n{table(rows)}\n{end}{rest.split(end)[1]}")


Rows = Sequence[tuple[Case, np.ndarray, np.ndarray]]


def other(module: str):
    """A package that only the environment of these scripts has."""
    return importlib.import_module(module)


def difference(ours: object, theirs: object) -> float:
    """Largest difference, relative to theirs; where theirs is 0, to the largest of theirs."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        return float("inf")
    scale = np.where(b == 0, np.abs(b).max() or 1.0, np.abs(b))
    return float(np.max(np.abs(a - b) / scale))


def versions(packages: str) -> str:
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages.split(", "))


def table(rows: Rows) -> str:
    lines = [
        "| metric | reference | theirs | ours | relative difference | accepted |",
        "|---|---|---|---|---|---|",
    ]
    for case, theirs, ours in rows:
        numbers = " | ".join(f"{np.mean(value):.9g}" for value in (theirs, ours))
        difference_ = f"{difference(ours, theirs):.1e} | {case.tolerance:.0e}"
        lines.append(f"| {case.name} | {versions(case.package)} | {numbers} | {difference_} |")
    return "\n".join(lines)


def main(record: Record, cases: Sequence[Case], inputs: Mapping[str, np.ndarray] | None = None) -> int:
    """Computes all cases; records them, or with ``--check`` compares them with what is recorded. The exit status.

    Args:
      record: where to.
      cases: whose ``theirs`` need the packages.
      inputs: what ``ours`` needs of the packages, recorded with the numbers.
    """
    parser = argparse.ArgumentParser(description="Compares genjax's metrics with those of other packages.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail beyond the tolerance")
    check = parser.parse_args().check
    rows = [(case, np.asarray(case.theirs(), np.float64), np.asarray(case.ours(), np.float64)) for case in cases]
    print(table(rows))
    failed = [f"{case.name}: ours" for case, theirs, ours in rows if not difference(ours, theirs) <= case.tolerance]
    if check:
        with np.load(record.recorded) as recorded:
            failed += [
                f"{case.name}: what is recorded"
                for case, theirs, _ in rows
                if case.key not in recorded or not difference(recorded[case.key], theirs) <= case.tolerance
            ]
    for line in failed:
        print(f"{line} differs by more than is accepted", file=sys.stderr)
    if not check and not failed:
        record.write(rows, inputs or {})
    return 1 if failed else 0
