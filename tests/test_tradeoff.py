"""Quality against work: which steps a budget buys, what is drawn and timed, and how it is written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import groups, results, results_page, tradeoff
from experiments.tradeoff import Cell, Row
from genjax.data.base import ArraySource
from genjax.evaluators.judged import Judge, Judged
from genjax.io.files import write_json
from genjax.train.sharding import data_mesh
from genjax.types import ImageSpec, UserError

SPEC = ImageSpec(4, 4, 1, classes=3)
STEP = {"single": lambda steps: steps, "double": lambda steps: 2 * steps - 1, "guided": lambda steps: 2 * steps}


def source(count):
    images = np.random.default_rng(count).integers(0, 256, (count, *SPEC.shape), np.uint8)
    return ArraySource(SPEC, "noise", {"source": "noise"}, images, (np.arange(count) % 3).astype(np.int32))


class State(NamedTuple):
    """As little of a state as evaluations ask for."""

    params: Mapping[str, Any] = {}
    ema: Mapping[str, Any] = {}


@dataclasses.dataclass
class Run:
    """Stands in for a restored run: its samples are noise of the strength 1 / steps; counts traces and calls."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    log: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    def with_settings(self, settings):
        return Run({**self.settings, **settings}, self.log)

    @property
    def steps(self):
        return self.settings.get("model.sampler.num_steps", 1)

    @property
    def plan(self):
        name = self.settings["model.sampler.name"]
        evaluations = None if name == "adaptive" else STEP[name](self.steps)
        config = {"seed": 3, "eval_batch_size": 8, "accelerator": {"compute_dtype": "float32"}}
        family = {"name": "diffusion", "sampling": {}, "evaluations": evaluations, "conditional": True}
        return SimpleNamespace(
            family=SimpleNamespace(**family),
            config=config,
            train=source(50),
            test=source(20),
        )

    @property
    def functions(self):
        def sample(state, keys, labels):
            self.log.append(("trace", self.steps))
            noise = jax.vmap(lambda key: jax.random.normal(key, SPEC.shape))(keys)
            return jnp.clip(0.5 + 0.2 * noise / self.steps, 0, 1).at[:, 0, 0, 0].set(labels / 2.0)

        compiled = jax.jit(sample)

        def call(*args):
            self.log.append(("call", self.steps))
            return compiled(*args)

        return SimpleNamespace(sample=call, eval_step=None, extras={})

    state, mesh = State(), property(lambda self: data_mesh(1))


def judge(labelled=True, num=30):
    classes_of = lambda images: np.round(images[:, 0, 0, 0] / 127.5).astype(int)  # noqa: E731
    features_of = lambda images: images.reshape(len(images), -1)[:, 1:5].astype(np.float32)  # noqa: E731
    return Judged(Judge(classes_of, features_of, {"run": "c"}, ("a", "b", "c")), num, labelled)


# What a budget buys.


def check_cells(cells):
    assert cells(Run(), "single", [1, 2, 4]) == [Cell("single", n, n) for n in (1, 2, 4)]
    # A first step of one evaluation and two for each more: 2 buys no more than 1, and 4 leaves one over.
    assert cells(Run(), "double", [1, 2, 4, 7]) == [Cell("double", 1, 1), Cell("double", 2, 3), Cell("double", 4, 7)]
    assert cells(Run(), "guided", [1, 2, 5]) == [Cell("guided", 1, 2), Cell("guided", 2, 4)]
    assert cells(Run(), "guided", [1]) == []


def test_a_budget_buys_the_most_steps_that_fit():
    check_cells(tradeoff.cells)


def exact(run, sampler, budgets):
    return [c for c in tradeoff.cells(run, sampler, budgets) if c.evaluations in budgets]


def above(run, sampler, budgets):
    return tradeoff.cells(run, sampler, [budget + 1 for budget in budgets])


def twice(run, sampler, budgets):
    return [cell for budget in budgets for cell in tradeoff.cells(run, sampler, [budget])]


def as_steps(run, sampler, budgets):
    return [Cell(sampler, budget, STEP[sampler](budget)) for budget in budgets]


@pytest.mark.parametrize("broken", [exact, above, twice, as_steps])
def test_the_check_of_budgets_rejects(broken):
    with pytest.raises(AssertionError):
        check_cells(broken)


@given(st.sampled_from(sorted(STEP)), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_no_other_steps_would_fit_better(sampler, budgets):
    found = tradeoff.cells(Run(), sampler, budgets)
    assert found == sorted(set(found), key=lambda cell: cell.num_steps)
    for budget in budgets:
        best = max((cell.num_steps for cell in found if cell.evaluations <= budget), default=0)
        assert STEP[sampler](best + 1) > budget


def test_a_sampler_whose_evaluations_the_data_decide_is_refused():
    with pytest.raises(UserError, match="--samplers=adaptive: .*accepted: samplers with num_steps"):
        tradeoff.cells(Run(), "adaptive", [4])


# What is measured.


def test_a_cell_is_one_program_and_the_same_latents():
    run, judged = Run(), judge()
    real = judged.judge.real(
        SimpleNamespace(batches=lambda: [{"image": run_images(), "mask": np.ones(20)}])  # pyright: ignore
    )
    first = tradeoff.measure(run, Cell("single", 1, 1), judged, real)
    # One batch of 8 to compile, then four for 30 samples.
    assert [what for what, steps in run.log if steps == 1] == ["call", "trace", *["call"] * 4]
    again = tradeoff.measure(run, Cell("single", 1, 1), judged, real)
    fewer = tradeoff.measure(run, Cell("double", 4, 7), judged, real)
    assert [what for what, steps in run.log if steps == 4].count("trace") == 1
    assert again.frechet_distance == first.frechet_distance != fewer.frechet_distance
    assert first.label_accuracy == fewer.label_accuracy == 1.0 and first.seconds_per_image > 0
    unasked = tradeoff.measure(run, Cell("single", 1, 1), judge(labelled=False), real)
    assert unasked.label_accuracy is None and "label_accuracy" not in unasked.record()


def run_images():
    return source(20).images


# How it is written down.


def rows(labelled=True):
    cells = [Cell("euler", n, n) for n in (1, 2, 4)] + [Cell("heun", n, 2 * n - 1) for n in (1, 2)]
    return [Row(cell, 100.0 / cell.evaluations, 0.9 if labelled else None, 0.0123) for cell in cells]


RECORD = {
    "step": 12, "weights": "averaged", "grid": "uniform", "settings": {"model.guidance_scale": 2.0},
    "device": "cpu (cpu)", "batch_size": 32,
    "judge": {
        "samples": 40, "seed": 0, "examples": 296, "feature_dims": 128, "frechet_distance_of_training_images": 1.25,
        "classifier": {"run": "cnn", "network": "cnn", "step": 352},
    },
}  # fmt: skip


def test_a_row_as_a_record():
    assert rows()[4].record() == {
        "sampler": "heun",
        "num_steps": 2,
        "evaluations": 3,
        "frechet_distance": 100.0 / 3,
        "label_accuracy": 0.9,
        "seconds_per_image": 0.0123,
    }


@pytest.mark.parametrize("labelled", [True, False])
def test_the_table_says_all_there_is(labelled):
    page = tradeoff.page(rows(labelled), RECORD)
    about, _, head, line, *table = page.splitlines()
    for part in ("40 samples (seed 0)", "step 12", "averaged", "grid uniform", "model.guidance_scale=2.0", "296 test"):
        assert part in about
    for part in ("128 features of cnn (cnn, step 352)", "Training images: 1.25", "cpu (cpu), batches of 32"):
        assert part in about
    assert head.count("|") == line.count("|") == (7 if labelled else 6) and len(table) == 5
    assert ("label accuracy" in head) == labelled
    assert table[4] == ("| heun | 2 | 3 | 33.33 | 90.0% | 12.3 |" if labelled else "| heun | 2 | 3 | 33.33 | 12.3 |")
    plain = tradeoff.page(rows(labelled), {**RECORD, "settings": {}, "judge": {**RECORD["judge"], "seed": 1}})
    assert "guidance" not in plain and "(seed 1)" in plain


@pytest.mark.parametrize("labelled", [True, False])
def test_the_figure_has_a_line_a_sampler(labelled):
    drawn = tradeoff.figure(rows(labelled), RECORD)
    assert drawn.dtype == np.uint8 and drawn.shape[-1] == 3
    assert drawn.shape[1] > 1.5 * drawn.shape[0] if labelled else drawn.shape[1] < 1.5 * drawn.shape[0]
    coloured = (np.ptp(drawn.astype(int), axis=-1) > 60).sum()
    one = [row for row in rows(labelled) if row.cell.sampler == "euler"]
    assert coloured > (np.ptp(tradeoff.figure(one, RECORD).astype(int), axis=-1) > 60).sum() > 100


def test_the_report_takes_it_over(tmp_path):
    run, target = tmp_path / "run", tmp_path / "docs"
    parts = {"data": {"source": "digits", "options": {}}, "seed": 0, "batch_size": 8, "model": {"family": "diffusion"}}
    parts["accelerator"] = {"compute_dtype": "float32", "accumulation": 1}
    write_json(run / "config.json", parts)
    environment = {"argv": ["train.py"], "packages": {"jax": "1", "flax": "1"}, "python": "3", "git": None}
    environment |= {"backend": "cpu", "device_kind": "cpu", "device_count": 1, "earlier": []}
    write_json(run / "environment.json", environment)
    scalars = {"frechet_distance": 3.25, "label_accuracy": 0.75}
    judged = {"scalars": scalars, "label_accuracy_interval_95": [0.5, 0.875]}
    evaluation = {"family": "diffusion", "step": 12, "weights": "averaged", "training_seconds": 3.0}
    evaluation |= {"evaluators": {"judge": judged}, "evaluations_per_sample": 19}
    evaluation |= {"settings": {"model.sampler.num_steps": 10}}
    write_json(run / "evaluation.json", evaluation)
    (run / "metrics.jsonl").write_text("")
    (run / "curve").mkdir()
    write_json(run / "curve" / "curve.json", {"judge": {"data": {"where": "/a/b/c"}}})
    (run / "curve" / "curve.md").write_text("what it is\n\n| table |\n")
    (run / "curve" / "curve.png").write_bytes(b"picture")
    (run / "curve" / ".curve.md.1.tmp").write_text("half")
    results.collect(run, target / "run")
    assert {path.name for path in (target / "run").iterdir()} == {
        *(f"{name}.json" for name in ("config", "evaluation", "environment", "curves", "curve")),
        "curves.png", "curve.md", "curve.png",
    }  # fmt: skip
    assert "/a/b" not in (target / "run" / "curve.json").read_text()
    page = results_page.page(groups.groups_of(groups.read_runs(target)), [], tmp_path)
    assert "\n\nwhat it is\n\n| table |\n\n" in page and "![curve of run](docs/run/curve.png)" in page
    assert "judge/label_accuracy | 75% [50%, 88%]" in page and "judge/frechet_distance | 3.25" in page
    assert "19 network evaluations a sample, model.sampler.num_steps=10" in page
