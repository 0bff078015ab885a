"""The speed benchmark measures the same work everywhere, and says what came out. No time is asserted."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.speed import __main__ as command
from benchmarks.speed import measure, report, worker, workload
from benchmarks.speed.frameworks import Framework
from benchmarks.speed.measure import Outcome, Plan, Result
from benchmarks.speed.process import Worker, WorkerError

ROOT = Path(__file__).resolve().parent.parent


IMPORTS = """
import sys
import benchmarks.speed.__main__
assert not {"numpy", "jax", "torch", "keras"} & set(sys.modules), "the one who measures imports a framework"
import benchmarks.speed.genjax_job
heavy = {"tensorflow", "tensorflow_datasets", "orbax", "ml_collections", "matplotlib", "tensorboardX", "PIL"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_each_process_imports_only_what_it_needs():
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Processes

FAKE = """
import sys, time
from benchmarks.speed.worker import Job

def build(settings):
    print("noise on stdout")
    if settings.options.get("missing"):
        import a_package_that_is_not_there
    def train(count):
        if settings.options.get("breaks") and count > 1:
            raise ValueError("out of memory\\nat 0x0")
        if settings.options.get("dies") and count > 1:
            sys.exit("the end")
        time.sleep(0.001 * count * settings.options.get("slow", 1))
    tasks = {"train": train, "sample": lambda count: time.sleep(0.001 * count)}
    return Job(tasks, {"fake": "1.0"}, unit=settings.options.get("unit", 1))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Frameworks of a module that only sleeps."""
    (tmp_path / "fake_job.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def install(**candidates):
        table = {
            name: Framework(name, "fake_job", "genjax", {"cpu": tuple(options)}, ("train", "sample"))
            for name, options in candidates.items()
        }
        monkeypatch.setattr(measure, "FRAMEWORKS", table)
        monkeypatch.setattr(report, "FRAMEWORKS", table)
        pythons = {"genjax": sys.executable}
        return Plan("cpu", ("vae",), tuple(table), pythons, rounds=3, seconds=0.01, batch=2, examples=10)

    return install


def test_a_worker_answers_in_one_line_each(fake, tmp_path):
    plan = fake(genjax=[{}])
    process = measure.launch(plan, measure.FRAMEWORKS["genjax"], "vae", {"unit": 3}, tmp_path)
    try:
        assert process.hello == {"ready": True, "unit": 3, "versions": {"fake": "1.0"}}
        assert process.started > 0 and process.seconds("train", 20) >= 0.02
        assert process.ask(run="facts")["peak_bytes"] > 2**20
        with pytest.raises(WorkerError, match="^KeyError: 'paint'$"):
            process.seconds("paint", 1)
    finally:
        process.close()


def test_measuring_takes_turns_and_keeps_the_fastest_settings(fake, tmp_path):
    plan = fake(genjax=[{}], other=[{"slow": 40}, {"slow": 20}], broken=[{"missing": 1}], half=[{"breaks": 1}])
    told = []
    outcome = measure.measure(plan, tmp_path, told.append)
    ours, other, broken, half = (outcome.results["vae", name] for name in plan.frameworks)
    assert [len(r.rates["train"]) for r in (ours, other)] == [plan.rounds] * 2
    assert other.options == {"slow": 20} and other.cold > 0 and other.warm > 0
    assert min(ours.rates["train"]) > max(other.rates["train"])
    assert broken.failure == "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"
    assert half.failure == "ValueError: out of memory" and half.rates == {}
    assert len(told) == len(plan.frameworks) + plan.rounds
    table = report.table(plan, outcome.results)
    assert "not available: ModuleNotFoundError" in table and table.count("not available") == 2


def test_a_follower_takes_the_settings_that_were_the_fastest(fake, tmp_path, monkeypatch):
    plan = fake(torch=[{"slow": 30}, {"slow": 10}], compile=[{"unit": 2}])
    follower = dataclasses.replace(measure.FRAMEWORKS["compile"], follows="torch")
    monkeypatch.setitem(measure.FRAMEWORKS, "compile", follower)
    results = measure.measure(plan, tmp_path, lambda text: None).results
    assert results["vae", "compile"].options == {"slow": 10, "unit": 2}
    assert measure.candidates_of(plan, follower, {}) == [{"slow": 30, "unit": 2}]


def test_what_is_left_out_is_not_started(fake, tmp_path, monkeypatch):
    plan = fake(genjax=[{}], slow=[{"missing": 1}])
    slow = dataclasses.replace(measure.FRAMEWORKS["slow"], left_out={"cpu": {"vae": "takes a year"}})
    monkeypatch.setitem(measure.FRAMEWORKS, "slow", slow)
    told = []
    results = measure.measure(plan, tmp_path, told.append).results
    assert results["vae", "slow"] == Result(left_out="takes a year") and not any("slow" in line for line in told)
    assert "| slow | left out: takes a year |" in report.table(plan, results)
    monkeypatch.setitem(measure.FRAMEWORKS, "slow", dataclasses.replace(slow, left_out={"gpu": {"vae": "a year"}}))
    assert measure.measure(plan, tmp_path, told.append).results["vae", "slow"].failure


def test_a_unit_of_sampling_is_as_many_images_as_the_network_draws_at_a_time():
    assert [measure.work_of(PLAN, network, "sample") for network in ("gan", "unet")] == [256, 64]
    assert measure.work_of(PLAN, "unet", "train") == 128
    plan = dataclasses.replace(PLAN, networks=("cnn", "gan", "unet"))
    assert report.samples(plan) == "samples at a time: 256 (DCGAN), 64 (flow-matching U-Net in 20 evaluations each); "
    assert report.samples(dataclasses.replace(PLAN, networks=("cnn",))) == ""


def test_one_settings_failure_leaves_the_other(fake, tmp_path):
    plan = fake(genjax=[{"missing": 1}, {}])
    assert measure.measure(plan, tmp_path, lambda text: None).results["vae", "genjax"].options == {}


def test_a_process_that_ends_or_is_silent_gives_a_reason(fake, tmp_path):
    plan = fake(genjax=[{"dies": 1}])
    assert measure.measure(plan, tmp_path, lambda text: None).results["vae", "genjax"].failure == "ended: the end"
    with pytest.raises(WorkerError, match="^no answer within 0 s$"):
        Worker([sys.executable, "-c", "import time; time.sleep(60)"], {}, tmp_path, limit=0.2)
    with pytest.raises(WorkerError, match="can't be run"):
        Worker([str(tmp_path / "nothing")], {}, tmp_path)


def test_the_first_step_is_taken_before_the_worker_is_ready():
    counts: list[int] = []
    job = worker.Job({"train": counts.append}, {}, unit=50)
    answers = io.StringIO()
    assert worker.serve(lambda: job, io.StringIO('{"run": "train", "count": 100}\n'), answers) == 0
    assert counts == [50, 100]
    assert [sorted(json.loads(line)) for line in answers.getvalue().splitlines()] == [
        ["ready", "unit", "versions"],
        ["seconds"],
    ]


def test_something_lazy_is_made_once_and_not_before_it_is_needed():
    made = []
    task = worker.lazy(lambda: made.append(1) or (lambda count: None))
    assert made == []
    task(1)
    task(2)
    assert made == [1]


# What is said


def outcome_of(**rates) -> Outcome:
    results = {("vae", name): Result(dict(r), cold=2.0, warm=1.0, peak_bytes=3 * 2**20) for name, r in rates.items()}
    return Outcome(results, idle_load=0.02)


PLAN = Plan("cpu", ("vae",), ("genjax", "torch"), {}, batch=128)
OUTCOME = outcome_of(
    genjax={"train": [100.0, 300.0, 200.0], "sample": [10.0, 10.0, 10.0], "matmul": [1e9, 1e9, 1e9]},
    torch={"train": [50.0, 100.0, 200.0], "matmul": [5e8, 2e9, 1e9]},
)


def test_ratios_are_taken_within_a_round():
    assert report.ratios([100.0, 300.0, 200.0], [50.0, 100.0, 200.0]) == [2.0, 3.0, 1.0]
    assert report.spread([2.0, 3.0, 1.0]) == "2.00 (1.00 to 3.00)"
    assert report.spread([]) == "-"
    assert report.limit(OUTCOME.results.values()) == [1e9, 2e9, 1e9]


def test_the_table_shows_medians_ratios_and_the_limit():
    lines = report.table(PLAN, OUTCOME.results).splitlines()
    assert {line.count("|") for line in lines} == {len(report.HEADER) + 1}
    ours, theirs, product = ([cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:])
    assert ours[:8] == ["genjax", "200", "-", "10", "-", "3", "2.0", "1.0"]
    assert theirs[:5] == ["PyTorch, eager", "100", "2.00 (1.00 to 3.00)", "-", "-"]
    bound = 128 * 1e9 / workload.training_flops("vae", 128)
    assert product[:2] == ["matrix product of the same FLOPs", f"{bound:,.0f}"]
    assert ours[8] == f"{100 * 150 / bound:.0f} ({100 * 100 / bound:.0f} to {100 * 200 / bound:.0f}) %"


def test_the_document_has_what_makes_a_number_worth_something():
    text = report.document(PLAN, OUTCOME, f"python -m benchmarks.speed --output={ROOT}/docs/x.md", 0.25)
    for part in ("Machine: ", "cores", "Versions: Python 3", "--output=docs/x.md`", "load before the run 0.2", "2 %"):
        assert part in text
    assert "GFLOP by hand" in text and str(ROOT) not in text


def test_a_reason_names_no_folder():
    assert report.mend("OSError: /ho" + "me/ada/lib/libtorch.so: a|b") == "OSError: libtorch.so: a/b"


def test_only_the_block_of_the_device_is_replaced(tmp_path):
    cpu, gpu = ("\n".join((begin, f"old {name}", end)) for name, (begin, end) in MARKERS.items())
    text = f"# Speed\n\n{cpu}\n\nBetween.\n\n{gpu}\n\nAfter.\n"
    new = report.replace_block(text, "gpu", "new")
    assert new == text.replace("old gpu", "new")
    assert report.replace_block(new, "gpu", "new") == new
    for bad in ("", cpu, gpu + gpu, gpu[::-1], "\n".join(reversed(gpu.splitlines()))):
        with pytest.raises(ValueError, match="once each"):
            report.replace_block(bad, "gpu", "new")
    report.write(tmp_path / "new.md", "cpu", "block")
    assert (tmp_path / "new.md").read_text() == "\n".join((MARKERS["cpu"][0], "block", MARKERS["cpu"][1], ""))


MARKERS = {device: report.markers(device) for device in ("cpu", "gpu")}


def test_the_page_has_a_place_for_every_device():
    text = (ROOT / "docs/performance.md").read_text()
    for device in MARKERS:
        assert report.replace_block(text, device, "x") != text


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--networks=cnn,resnet"], "'resnet' is unknown; accepted: cnn, gan, vae, unet"),
        (["--frameworks="], "'' is unknown; accepted: genjax, scan"),
        (["--rounds=0"], "'0' is no positive number"),
        (["--batch=-1"], "'-1' is no positive number"),
        (["--device=tpu"], "invalid choice: 'tpu'"),
        (["--torch-python=no/such/python"], "is no program"),
        (["--output=no/such/folder/x.md"], "can't be written"),
        (["--output=README.md"], "it needs the lines"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(arguments, complaint, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == ""
    assert complaint in printed.err and printed.err.count("\n") == 1


def test_the_command_prints_the_section_and_writes_it(fake, tmp_path, capsys, monkeypatch):
    plan = fake(genjax=[{}])
    monkeypatch.setattr(command, "plan_of", lambda args: dataclasses.replace(plan, rounds=2))
    page = tmp_path / "page.md"
    begin, end = report.markers("cpu")
    page.write_text(textwrap.dedent(f"# Title\n\n{begin}\nold\n{end}\n"))
    assert command.main([f"--output={page}"]) == 0
    printed = capsys.readouterr().out
    assert "| convolutional VAE | genjax |" in printed
    assert page.read_text() == f"# Title\n\n{begin}\n{printed}{end}\n"
