"""What the drills say: their table, and what a killed run was doing. The drills themselves are ``make drills``."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.drills import kills, soak
from tests.drills.runs import FAMILIES, Started
from tests.drills.table import BEGIN, END, Row, markdown, write_between_markers


def test_the_table_takes_the_place_of_the_one_before(tmp_path):
    rows = [Row("kill -9", 30, 30, "at most 20 steps"), Row("SIGTERM", 3, 2, "nothing")]
    assert [row.whole for row in rows] == [True, False]
    path = tmp_path / "doc.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between_markers(path, markdown(rows))
    text = path.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| fault |") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert "| kill -9 | 30 | 30 | at most 20 steps |" in text.splitlines()
    path.write_text("no marks")
    with pytest.raises(ValueError, match="doc.md has no"):
        write_between_markers(path, "")


def write_log(folder, *records) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 9')


def test_what_a_killed_run_was_doing_is_read_off_its_folder(tmp_path):
    folder, running = tmp_path / "run", "first step after 3 s\n"
    assert kills.observed(folder, "") == "in the start" and kills.observed(folder, running) == "in training"
    write_log(folder, {"step": 40, "train/loss": 1.0})
    assert kills.observed(folder, running) == "in evaluation"
    write_log(folder, {"step": 40, "train/loss": 1.0}, {"step": 40, "eval/loss": 1.0})
    assert kills.observed(folder, running) == "in training"
    write_log(folder, {"step": 30, "train/loss": 1.0})
    assert kills.observed(folder, running) == "in training"
    (folder / "checkpoints" / "30.orbax-checkpoint-tmp").mkdir(parents=True)
    assert kills.observed(folder, running) == "in a checkpoint write"
    write_log(folder, {"step": 80, "train/loss": 1.0})
    assert kills.observed(folder, running) == "in evaluation"


def test_every_family_has_a_run():
    families = {name.partition("/")[0] for name, _, _ in FAMILIES.values()}
    assert families == set(FAMILIES) == {"classifier", "gan", "vae", "diffusion"}
    answer = Started(["--workdir=nowhere"]).answer()
    assert answer.status == 2 and answer.err == "error: --config and --workdir are required; see --help\n", answer


def samples(growth: float) -> list[soak.Sample]:
    rng = np.random.default_rng(0)
    steps = range(100, 20_100, 100)
    noise = rng.normal(0, 1e6, len(steps))
    return [
        soak.Sample(step, step * 1e-3, int(1e9 * (1 + growth * step / 20_000) + noise[i]), 10**6, 50)
        for i, step in enumerate(steps)
    ]


def test_a_leak_is_told_from_noise(tmp_path):
    for growth in (0.0, 0.1):
        found = soak.curves(samples(growth))
        line = soak.slope(*found["process memory, MB"])
        assert math.isclose(line.change, growth, abs_tol=0.006) and 0 < line.error < 1e-3
        assert abs(line.change) < 4 * line.error or growth > 0
        assert abs(soak.slope(*found["ms per step"]).change) < 1e-9
    lines = soak.table(samples(0.1)).splitlines()
    assert (
        len(lines) == 2 + soak.PARTS + 1 and "+6.9" in lines[-1].split("|")[2] and "+0.00%" in lines[-1].split("|")[3]
    )
    soak.draw(samples(0.1), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 10_000
