"""RESULTS.md: the collected runs by group, for people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from experiments import results_text as text
from experiments.comparison import Comparison
from experiments.groups import Figure, Group


def page(groups: Sequence[Group], verdicts: Sequence[tuple[Comparison, str]], relative_to: Path) -> str:
    """The whole page; pictures are linked relative to the folder ``relative_to``."""
    lines = [
        "# Results",
        "",
        "Made by `python -m experiments.report`; do not edit.",
        f"{text.INTRODUCTION}",
        "",
        *_table(
            ("config", "data", "seeds", "images seen", "training", "device", "published figures"),
            [
                (
                    f"[{_escaped(group.name)}](#{text.anchor(group.name)})",
                    _escaped(group.runs[0].data),
                    ", ".join(str(run.seed) for run in group.runs),
                    text.joined(f"{run.examples_seen:,}" for run in group.runs),
                    text.mean_duration(group),
                    _escaped(text.joined(run.device for run in group.runs)),
                    _strong(text.verdict_on(group)),
                )
                for group in groups
            ],
            right=(3, 4),
        ),
        "",
        *_published(groups),
        *_comparisons(verdicts),
    ]
    for group in groups:
        lines += _section(group, relative_to)
    return "\n".join(lines).rstrip() + "\n"


def _published(groups: Sequence[Group]) -> list[str]:
    rows = [
        (
            _escaped(group.name),
            _escaped(figure.name),
            text.value(figure),
            text.reference(figure),
            text.difference(figure),
            _strong(text.mark(figure)),
            _escaped(figure.reference.source),
        )
        for group in groups
        for figure in group.figures
        if figure.reference is not None
    ]
    if not rows:
        return []
    names = ("config", "figure", "here", "published", "difference", "mark", "source")
    return ["## Published figures", "", *_table(names, rows), ""]


def _comparisons(verdicts: Sequence[tuple[Comparison, str]]) -> list[str]:
    if not verdicts:
        return []
    rows = [
        (_escaped(found.a), _escaped(found.b), _escaped(found.metric), _escaped(words)) for found, words in verdicts
    ]
    return ["## Comparisons", "", *_table(("A", "B", "figure", "verdict"), rows), ""]


def _section(group: Group, relative_to: Path) -> list[str]:
    lines = [f"## {_escaped(group.name)}", "", f"    {group.runs[0].command}", ""]
    lines += [
        f"{_escaped(text.joined(run.measured for run in group.runs))}; "
        f"{_escaped(text.joined(run.versions for run in group.runs))}.",
        "",
        *(
            f"- {_escaped(run.name)}: seed {run.seed}, {text.duration(run.seconds)}"
            + (f", commit {run.commit}" if run.commit else "")
            for run in group.runs
        ),
        "",
        *_table(("figure", "value", "seeds", "protocol", "reference", "mark"), [_row(f) for f in text.rows(group)]),
        "",
    ]
    for whole, figures in text.parts(group).items():
        named = (f"{figure.metric.partition('/')[2]} {text.number(figure.metric, figure.mean)}" for figure in figures)
        lines.append(f"- {_escaped(whole)}: {_escaped(', '.join(named))}")
    lines += [f"- {_escaped(fact)}" for fact in text.facts(group)]
    lines.append("")
    for run in group.runs:
        if (run.path / "curve.md").exists():
            lines += [(run.path / "curve.md").read_text().rstrip(), ""]
    for name, files in text.pictures(group).items():
        links = [f"![{name} of {run}]({quote(os.path.relpath(path, relative_to))})" for run, path in files]
        lines += links if len(links) == 1 else _table([_escaped(run) for run, _ in files], [links])
        lines.append("")
    return lines


def _row(figure: Figure) -> tuple[str, ...]:
    reference = "" if figure.reference is None else f"{text.reference(figure)}, {figure.reference.source}"
    return (
        _escaped(figure.name),
        text.value(figure),
        text.seeds(figure.seeds),
        _escaped(figure.protocol),
        _escaped(reference),
        _strong(text.mark(figure)),
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    rule = ["---:" if column in right else "---" for column in range(len(names))]
    return [f"| {' | '.join(names)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in rows)]


def _strong(words: str) -> str:
    return f"**{words}**" if "MISSED" in words else words


def _escaped(words: str) -> str:
    """Words of files, such that they are no markup."""
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
