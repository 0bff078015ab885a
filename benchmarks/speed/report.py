"""From results to Markdown: the table, what it was measured with, and its place in a document."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.speed import workload
from benchmarks.speed.frameworks import BASELINE, FRAMEWORKS
from benchmarks.speed.measure import ROOT, Outcome, Plan, Result, cores

NOTHING = "-"
HEADER = (
    "network",
    "",
    "training, images/s",
    "genjax's rate / this",
    "sampling, images/s",
    "genjax's rate / this",
    "peak memory, MiB",
    "first step, cold, s",
    "first step, warm, s",
    "share of the limit",
)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Ratio in every round that both have."""
    return [a / b for a, b in zip(ours, theirs, strict=False)]


def spread(values: list[float], digits: int = 2) -> str:
    """Median, least and largest: "1.50 (1.40 to 1.70)"."""
    if not values:
        return NOTHING
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def rate(values: list[float]) -> str:
    """Median of images/s."""
    return f"{statistics.median(values):,.0f}" if values else NOTHING


def limit(results: Iterable[Result]) -> list[float]:
    """FLOP/s of the matrix product in each round, of whichever framework was the faster."""
    columns = [result.rates["matmul"] for result in results if "matmul" in result.rates]
    return [max(values) for values in zip(*columns, strict=False)]


def seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def mend(text: str) -> str:
    """Text without the folders of this machine, which mean nothing elsewhere, and without what breaks a table."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", text).replace("|", "/")


def row(name: str, result: Result, base: Result, bound: list[float]) -> list[str]:
    """The cells of one framework; ``bound`` is the machine's limit in images/s."""
    if result.left_out:
        return [FRAMEWORKS[name].title, f"left out: {mend(result.left_out)}"]
    if result.failure:
        return [FRAMEWORKS[name].title, f"not available: {mend(result.failure)}"]
    train, sample = (result.rates.get(task, []) for task in ("train", "sample"))
    same = name == BASELINE
    return [
        FRAMEWORKS[name].title,
        rate(train),
        NOTHING if same else spread(ratios(base.rates.get("train", []), train)),
        rate(sample),
        NOTHING if same else spread(ratios(base.rates.get("sample", []), sample)),
        f"{result.peak_bytes / 2**20:,.0f}",
        seconds(result.cold),
        seconds(result.warm),
        percent(ratios(train, bound)),
    ]


def percent(values: list[float]) -> str:
    return f"{spread([100 * v for v in values], 0)} %" if values else NOTHING


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells + [""] * (len(HEADER) - len(cells))) + " |"


def table(plan: Plan, results: Mapping[tuple[str, str], Result]) -> str:
    """One row for each network and framework, and one for the matrix product of the same FLOPs."""
    lines = [line(list(HEADER)), "|" + "---|" * len(HEADER)]
    for network in plan.networks:
        here = {name: results[network, name] for name in plan.frameworks}
        base = here.get(BASELINE, Result())
        flops = workload.training_flops(network, plan.batch)
        bound = [plan.batch * speed / flops for speed in limit(here.values())]
        title = workload.NETWORKS[network]
        lines += [line([title, *row(name, result, base, bound)]) for name, result in here.items()]
        if bound:
            cells = [
                "matrix product of the same FLOPs",
                rate(bound),
                spread(ratios(base.rates.get("train", []), bound)),
            ]
            lines.append(line([title, *cells]))
    return "\n".join(lines)


def arithmetic(plan: Plan, results: Mapping[tuple[str, str], Result]) -> list[str]:
    """The limit of every network in numbers."""
    lines = []
    for network in plan.networks:
        flops = workload.training_flops(network, plan.batch)
        speeds = limit(results[network, name] for name in plan.frameworks)
        if not speeds:
            continue
        speed = statistics.median(speeds)
        counted = results[network, BASELINE].flops if BASELINE in plan.frameworks else 0.0
        xla = f"; XLA counts {counted / 1e9:.2f} in genjax's program" if counted else ""
        size = workload.MATRIX[plan.device]
        lines.append(
            f"- {workload.NETWORKS[network]}: a step is {flops / 1e9:.2f} GFLOP by hand{xla}. "
            f"A matrix product [{size}, {size}] reached {speed / 1e9:,.0f} GFLOP/s; "
            f"at that rate the step would take {1e3 * flops / speed:.3g} ms."
        )
    return lines


def choices(plan: Plan, results: Mapping[tuple[str, str], Result]) -> list[str]:
    """Which of their settings the frameworks with several ran with."""
    lines = []
    for name in plan.frameworks:
        if len(FRAMEWORKS[name].candidates[plan.device]) == 1 and not FRAMEWORKS[name].follows:
            continue
        found = {network: results[network, name].options for network in plan.networks}
        told = [f"{n} {', '.join(f'{k}={v}' for k, v in options.items())}" for n, options in found.items() if options]
        if told:
            lines.append(f"- {FRAMEWORKS[name].title}: {'; '.join(told)}.")
    return lines


def machine() -> str:
    """Processor, cores and memory."""
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found[1].strip() if found else model
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {cores()} cores, {memory:.0f} GiB"


def versions(results: Mapping[tuple[str, str], Result]) -> str:
    found: dict[str, str] = {}
    for result in results.values():
        found |= result.versions
    return ", ".join(f"{name} {version}" for name, version in {"Python": platform.python_version(), **found}.items())


def samples(plan: Plan) -> str:
    """How many images one call of each network's sampler draws."""
    told = []
    for network in plan.networks:
        if network in workload.SAMPLES:
            steps = workload.EVALUATIONS[network]
            each = f" in {steps} evaluations each" if steps > 1 else ""
            told.append(f"{workload.SAMPLES[network]} ({workload.NETWORKS[network]}{each})")
    return f"samples at a time: {', '.join(told)}; " if told else ""


def document(plan: Plan, outcome: Outcome, command: str, load: float) -> str:
    """The whole section.

    Args:
      plan, outcome: what was measured.
      command: that made it.
      load: average of the machine in the minute before.
    """
    results = outcome.results
    parts = [
        f"- Machine: {machine()}; load before the run {load:.1f}.",
        f"- Versions: {versions(results)}.",
        f"- Date: {datetime.date.today().isoformat()}. Command: `{mend(command.replace(f'{ROOT}/', ''))}`.",
        f"- Batch {plan.batch}, 28x28x1, float32, Adam; {samples(plan)}{plan.rounds} rounds of "
        f"about {plan.seconds:g} s each. Rates are medians, ratios median (least to largest) over the rounds.",
        f"- While one process was measured, the waiting ones used at most {100 * outcome.idle_load:.0f} % of a core.",
        "",
        table(plan, results),
        "",
        *arithmetic(plan, results),
    ]
    if chosen := choices(plan, results):
        how = "the fastest of those tried" if plan.all_candidates else "the first of those there are"
        parts += ["", f"Settings of the peers, {how}:", "", *chosen]
    return "\n".join(parts)


def markers(device: str) -> tuple[str, str]:
    return f"<!-- speed on {device}: begin -->", f"<!-- speed on {device}: end -->"


def replace_block(text: str, device: str, block: str) -> str:
    """``text`` with what stands between the markers of ``device`` replaced.

    Raises:
      ValueError: the markers are not there, once each and in order.
    """
    begin, end = markers(device)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"it needs the lines {begin!r} and {end!r}, once each")
    head, tail = text.partition(begin)[0], text.partition(end)[2]
    return f"{head}{begin}\n{block}\n{end}{tail}"


def write(path: Path, device: str, block: str) -> None:
    """Puts the block in its place in ``path``; a file that is not there yet is made of it."""
    begin, end = markers(device)
    path.write_text(replace_block(path.read_text() if path.exists() else f"{begin}\n{end}\n", device, block))
