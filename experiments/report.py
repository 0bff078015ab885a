"""Writes RESULTS.md and results.csv out of finished work folders; nothing in them is typed by hand.

  python -m experiments.report --workdirs=runs/vae,runs/gan --collect=docs/results --out=RESULTS.md

--collect copies what a reader needs of each run (config, results, curves, pictures; a few hundred kB, no checkpoints)
into a folder; RESULTS.md and, in that folder, results.csv (a line for each number) are made from there, so that
--collect=docs/results alone writes the same again.
"""

from __future__ import annotations

from absl import flags

from experiments import cli

WORKDIRS = flags.DEFINE_list("workdirs", [], "Work folders of finished runs to collect.")
COLLECT = flags.DEFINE_string("collect", "docs/results", "Folder with a sub-folder for each run.")
OUT = flags.DEFINE_string("out", "RESULTS.md", "The page.")


def main() -> int:
    from pathlib import Path

    from experiments import results, results_table
    from genjax.io.files import write_atomic
    from genjax.types import UserError

    folder = Path(COLLECT.value)
    for path in WORKDIRS.value:
        results.collect(Path(path), folder / Path(path).name)
    runs = sorted(path.parent for path in folder.glob("*/evaluation.json"))
    if not runs:
        raise UserError(f"no finished run in {folder}; accepted: --workdirs with folders that hold evaluation.json")
    write_atomic(OUT.value, results.page(runs, Path(OUT.value).parent).encode())
    write_atomic(folder / "results.csv", results_table.table(runs).encode())
    print(f"{len(runs)} runs: {OUT.value}, {folder / 'results.csv'}")
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
