"""Writes RESULTS.md, an HTML page and CSV files out of finished work folders; nothing in them is typed by hand.

  python -m experiments.report runs/vae runs/gan

Copies what a reader needs of each run (config, results, curves, pictures, published figures; a few hundred kB, no
checkpoints) to --collect. From there it makes RESULTS.md and, in that folder, index.html, results.csv (a line for each
run's numbers) and results_groups.csv (a line for each figure of runs that differ in their seeds alone). Without work
folders the same is written again. A folder of a population stands for all its members.

Published figures are those that the config file of a run declares (configs/references.py), read from below the current
folder where it lies there. --compare=GROUP:GROUP:EVALUATOR/NUMBER puts a verdict on the page; it is kept for the next
time, until another --compare takes its place.

  python -m experiments.report runs/sweep

Of the folder of a sweep: a table of its settings, the best with its interval, and figures of each setting against the
metric, in runs/sweep/report; nothing else is touched. The metric is the config's checkpoint.best unless --metric=NAME
says another, with :min or :max behind it where its name does not tell which is better.
"""

from __future__ import annotations

from absl import flags

from experiments import cli

WORKDIRS = flags.DEFINE_list("workdirs", [], "Work folders of finished runs to collect, as the arguments are.")
COLLECT = flags.DEFINE_string("collect", "docs/results", "Folder with a sub-folder for each run.")
OUT = flags.DEFINE_string("out", "RESULTS.md", "The page.")
METRIC = flags.DEFINE_string("metric", "", "Of a sweep: what its settings are judged by, such as eval/elbo.")
COMPARE = flags.DEFINE_multi_string("compare", [], "Two groups and a number, such as vae/a:vae/b:eval/elbo.")


def main(paths: list[str]) -> int:
    import dataclasses
    from pathlib import Path

    from experiments import (
        comparison,
        groups,
        results,
        results_html,
        results_page,
        results_table,
        results_text,
        sweep_folder,
    )
    from genjax.io.files import write_atomic, write_json
    from genjax.types import UserError

    sweeps = [path for path in [*paths, *WORKDIRS.value] if (Path(path) / sweep_folder.RECORD).is_file()]
    if sweeps:
        return _of_sweeps(sweeps, [*paths, *WORKDIRS.value])
    if METRIC.value:
        raise UserError("--metric is about the folder of a sweep, of which none is given")
    folder, out = Path(COLLECT.value), Path(OUT.value)
    comparisons = comparison.parsed(COMPARE.value)
    collected = results.targets([*paths, *WORKDIRS.value], folder)
    for path, target in collected.items():
        results.collect(path, target)
    for path in sorted(path.parent for path in folder.glob("*/evaluation.json")):
        if path not in collected.values():
            results.refresh_references(path)
    runs = groups.read_runs(folder)
    if not runs:
        raise UserError(f"no finished run in {folder}; accepted: work folders that hold evaluation.json as arguments")
    found = groups.groups_of(runs)
    verdicts = comparison.lines(comparisons or comparison.stored(folder), found)
    files = {
        out: results_page.page(found, verdicts, out.parent),
        folder / "index.html": results_html.page(found, verdicts, folder),
        folder / "results.csv": results_table.table(runs),
        folder / "results_groups.csv": results_table.group_table(found),
    }
    for path, content in files.items():
        write_atomic(path, content.encode())
    if comparisons:
        write_json(folder / comparison.COMPARISONS, [dataclasses.asdict(item) for item in comparisons])
    for group in found:
        for figure in group.missed:
            print(
                f"{group.name}: {figure.name} {results_text.value(figure)}, published {results_text.reference(figure)}"
            )
    for _, words in verdicts:
        print(words)
    print(f"{len(runs)} runs of {len(found)} configs: {', '.join(map(str, files))}")
    return 0


def _of_sweeps(paths: list[str], given: list[str]) -> int:
    from experiments import sweep_outcomes, sweep_report
    from experiments.sweep_folder import Sweep
    from genjax.types import UserError

    if others := [path for path in given if path not in paths]:
        raise UserError(f"{others[0]}: no sweep, and the others are; accepted: folders of sweeps alone, or of runs")
    for found in [sweep_outcomes.found(Sweep.read(path), METRIC.value) for path in paths]:
        print(sweep_report.text(found))
        print(f"report: {sweep_report.write(found)}", flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, positional=True)
