"""The results as one HTML page: no script, nothing from elsewhere, pictures beside it; readable in light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from experiments import results_text as text
from experiments.comparison import Comparison
from experiments.groups import Figure, Group
from experiments.results_chart import chart

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de; --bad: #b42318; --good: #116329;
  --faint: #59636e; --c0: #0b62c4; --c1: #c2410c; --c2: #15803d; --c3: #9333ea; --c4: #a16207; --c5: #0e7490; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #3d444d; --bad: #ff8f85;
  --good: #6fdd8b; --faint: #9198a1; --c0: #6cb6ff; --c1: #fdac54; --c2: #6bd98a; --c3: #d2a8ff; --c4: #e3c34d;
  --c5: #56d4dd; } }
body { color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.missed { color: var(--bad); font-weight: bold; }
.reached { color: var(--good); }
.faint, figcaption { color: var(--faint); }
a { color: var(--c0); }
code, pre { font: 13px/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .5rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0 0 1rem; }
img { max-width: 100%; background: #ffffff; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
"""


def page(groups: Sequence[Group], verdicts: Sequence[tuple[Comparison, str]], relative_to: Path) -> str:
    """The whole page; pictures are linked relative to the folder ``relative_to``."""
    parts = [
        "<h1>Results</h1>",
        f"<p>Made by <code>python -m experiments.report</code>; do not edit. {escape(text.INTRODUCTION)}</p>",
        _overview(groups),
        _published(groups),
        _comparisons(verdicts),
        *(_section(group, relative_to) for group in groups),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Results</title><style>{_STYLE}</style></head>",
            "<body>",
            *(part for part in parts if part),
            "</body></html>\n",
        ]
    )


def _overview(groups: Sequence[Group]) -> str:
    return _table(
        ("config", "data", "seeds", "images seen", "training", "device", "published figures"),
        [
            (
                f'<a href="#{quote(text.anchor(group.name))}">{escape(group.name)}</a>',
                escape(group.runs[0].data),
                escape(", ".join(str(run.seed) for run in group.runs)),
                escape(text.joined(f"{run.examples_seen:,}" for run in group.runs)),
                escape(text.mean_duration(group)),
                escape(text.joined(run.device for run in group.runs)),
                _mark(text.verdict_on(group)),
            )
            for group in groups
        ],
    )


def _published(groups: Sequence[Group]) -> str:
    rows = [
        (
            escape(group.name),
            escape(figure.name),
            escape(text.value(figure)),
            escape(text.reference(figure)),
            escape(text.difference(figure)),
            _mark(text.mark(figure)),
            escape(figure.reference.source),
        )
        for group in groups
        for figure in group.figures
        if figure.reference is not None
    ]
    names = ("config", "figure", "here", "published", "difference", "mark", "source")
    return f"<h2>Published figures</h2>\n{_table(names, rows)}" if rows else ""


def _comparisons(verdicts: Sequence[tuple[Comparison, str]]) -> str:
    rows = [(escape(found.a), escape(found.b), escape(found.metric), escape(words)) for found, words in verdicts]
    return f"<h2>Comparisons</h2>\n{_table(('A', 'B', 'figure', 'verdict'), rows)}" if rows else ""


def _section(group: Group, relative_to: Path) -> str:
    runs = [
        f"<li>{escape(run.name)}: seed {escape(str(run.seed))}, {escape(text.duration(run.seconds))}"
        + (f", commit <code>{escape(run.commit)}</code>" if run.commit else "")
        + "</li>"
        for run in group.runs
    ]
    facts = [f"<li>{escape(fact)}</li>" for fact in text.facts(group)]
    for whole, figures in text.parts(group).items():
        named = (f"{figure.metric.partition('/')[2]} {text.number(figure.metric, figure.mean)}" for figure in figures)
        facts.append(f"<li>{escape(whole)}: {escape(', '.join(named))}</li>")
    measured = f"{text.joined(run.measured for run in group.runs)}; {text.joined(run.versions for run in group.runs)}"
    return "\n".join(
        [
            f'<h2 id="{text.anchor(group.name)}">{escape(group.name)}</h2>',
            f"<pre>{escape(group.runs[0].command)}</pre>",
            f"<p>{escape(measured)}.</p>",
            f"<ul>{''.join(runs)}</ul>",
            _table(("figure", "value", "seeds", "protocol", "reference", "mark"), [_row(f) for f in text.rows(group)]),
            f'<ul class="faint">{"".join(facts)}</ul>',
            *(
                f"<details><summary>Samplers of {escape(run.name)}</summary>"
                f"<pre>{escape((run.path / 'curve.md').read_text())}</pre></details>"
                for run in group.runs
                if (run.path / "curve.md").exists()
            ),
            _charts(group),
            *_pictures(group, relative_to),
        ]
    )


def _row(figure: Figure) -> tuple[str, ...]:
    reference = "" if figure.reference is None else f"{text.reference(figure)}, {figure.reference.source}"
    return (
        escape(figure.name),
        escape(text.value(figure)),
        escape(text.seeds(figure.seeds)),
        escape(figure.protocol),
        escape(reference),
        _mark(text.mark(figure)),
    )


def _charts(group: Group) -> str:
    found = [chart(name, series) for name, series in text.curves(group).items()]
    return f'<div class="row">{"".join(found)}</div>' if found else ""


def _pictures(group: Group, relative_to: Path) -> Iterable[str]:
    for name, files in text.pictures(group).items():
        if name == "curves":
            continue  # drawn above, all seeds in one
        shown = [
            f'<figure><img src="{escape(quote(os.path.relpath(path, relative_to)), quote=True)}" '
            f'alt="{escape(f"{name} of {run}", quote=True)}" loading="lazy">'
            f"<figcaption>{escape(f'{name} of {run}')}</figcaption></figure>"
            for run, path in files
        ]
        yield f'<h3>{escape(name)}</h3>\n<div class="row">{"".join(shown)}</div>'


def _mark(words: str) -> str:
    kind = "missed" if "MISSED" in words else "reached" if "reached" in words else "faint"
    return f'<span class="{kind}">{escape(words)}</span>'


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    numbers = {"value", "here", "published", "difference", "images seen", "training"}
    kinds = [' class="number"' if name in numbers else "" for name in names]
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "\n".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>" for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
