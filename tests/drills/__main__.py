"""Brings about every fault that a run has to survive, and prints what survived.

  python -m tests.drills                                       every drill, half an hour on two cores
  python -m tests.drills --families=vae --times=5 --only=kills
  python -m tests.drills --accelerator=gpu --only=kills        on a GPU, with accelerator.deterministic

For each family an undisturbed run, then one that is killed at random moments and started again; for the VAE signals,
damage and failing storage besides. A fault is survived when the run ends with the same bits as the undisturbed one:
parameters, averages, optimizer state, metrics.jsonl, pictures, and no step twice in TensorBoard.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.drills import faults, kills, runs
from tests.drills.runs import FAMILIES, Started, arguments
from tests.drills.table import Row, markdown, write_between_markers


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30, help="kills of each family (default 30)")
    parser.add_argument("--repeat", type=int, default=3, help="times of each other fault (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--families", default=",".join(FAMILIES), help="which to kill, with commas between")
    parser.add_argument("--accelerator", choices=("cpu", "gpu", "tpu"), default="cpu", help="of all runs (default cpu)")
    parser.add_argument("--only", choices=("kills", "faults", "storage"), help="a part of the drills")
    parser.add_argument("--output", type=Path, help="a file with marks, such as docs/robustness.md, for the table")
    parser.add_argument("--folder", type=Path, help="for the runs; a temporary one unless given")
    options = parser.parse_args()
    if unknown := set(options.families.split(",")) - FAMILIES.keys():
        parser.error(f"--families: {', '.join(sorted(unknown))}; accepted: {', '.join(FAMILIES)}")
    return options


def undisturbed(family: str, parent: Path, say) -> Path:
    """The folder of a run that nothing happens to."""
    folder = parent / f"{family}-whole"
    begin = time.monotonic()
    answer = Started(arguments(family, folder)).answer()
    if answer.status != 0 or answer.err:
        raise SystemExit(f"the undisturbed run of {family} failed: {answer}")
    say(f"{family}: undisturbed in {time.monotonic() - begin:.0f} s")
    return folder


def main() -> int:
    options = parse()
    runs.accelerator = options.accelerator
    begin = time.monotonic()
    say = lambda line: print(f"{time.monotonic() - begin:6.0f} s  {line}", flush=True)  # noqa: E731
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="drills-") as temporary:
        parent = (options.folder or Path(temporary)).resolve()
        parent.mkdir(parents=True, exist_ok=True)
        # Starts are faster when programs need not be compiled, and nothing is left in the user's cache.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(parent / "compiled"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        chosen = options.families.split(",") if options.only in (None, "kills") else []
        for family in chosen:
            whole = undisturbed(family, parent, say)
            rows.append(kills.drill(family, whole, parent, options.times, random.Random(options.seed), say))
        if options.only != "kills":
            whole = parent / "vae-whole"
            whole = whole if whole.exists() else undisturbed("vae", parent, say)
            only = options.only == "storage"
            rows += faults.drill(whole, parent, options.repeat, random.Random(options.seed), say, only)
    table = markdown(rows)
    print(table)
    if options.output:
        write_between_markers(options.output, table)
    return 0 if all(row.whole for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
