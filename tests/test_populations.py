"""Which runs of a sweep train as one population, and how many of them fit into memory."""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.vae import digits_conv
from experiments.executors import population
from experiments.executors.base import Listed, Options, Verdict
from experiments.sweep_folder import Sweep, SweepRun
from genjax import build, populations
from genjax.io.files import write_json
from genjax.train import capacity, loop
from genjax.train.sharding import data_mesh
from genjax.train.steps import Trainer
from genjax.types import UserError
from tests.contract.test_population import Streamed


def config(**settings) -> dict:
    found = digits_conv.get_config("accelerator=cpu,smoke")
    found.update_from_flattened_dict({name.replace("__", "."): value for name, value in settings.items()})
    return build.to_plain(found)


RUNS = {
    "a": {},
    "wide": {"model__network__width": 8},
    "seed": {"seed": 7},
    "wide and fast": {"model__network__width": 8, "optim__learning_rate": 1e-2},
    "beta": {"model__beta": 2.0, "seed": 3},
    "adam": {"optim__b1": 0.5},
    "device": {"accelerator__devices": 99},
}


@pytest.fixture(scope="module")
def plans():
    built = populations.Builder()
    return {name: built(config(**settings)) for name, settings in RUNS.items()}


def test_runs_that_differ_in_numbers_of_the_state_are_one_group(plans):
    groups = populations.grouped(plans)
    assert [list(group) for group in groups] == [["a", "seed", "beta"], ["wide", "wide and fast"], ["adam"], ["device"]]
    for group in groups:
        first = next(iter(group.values()))
        for name, plan in group.items():
            assert plan.config == config(**RUNS[name]) == plans[name].config
            assert plan.family.hparams == build.experiment(plan.config).family.hparams
            assert plan.train is first.train and plan.test is first.test and plan.evaluators is first.evaluators
    assert populations.differing(groups[0].values()) == ("seed", "model.beta")
    assert populations.differing(groups[1].values()) == ("optim.learning_rate",)
    assert populations.differing(groups[2].values()) == ()


def test_groups_load_their_data_once_however_they_were_built(plans):
    assert len({id(plan.train) for plan in plans.values()}) == 1
    apart = {name: build.experiment(config(**RUNS[name])) for name in ("a", "seed")}
    assert apart["a"].train is not apart["seed"].train
    (group,) = populations.grouped(apart)
    assert group["a"].train is group["seed"].train
    other = populations.Builder()
    assert other(config()).train is not other(config(data__train="train[:100]")).train


@pytest.mark.parametrize("network", [3, {"learning_rate": 0.1}])
def test_what_is_no_config_is_refused_by_its_first_build(network):
    wrong = copy.deepcopy(config())
    wrong["optim"] = {"generator": network}
    with pytest.raises(UserError, match="optim"):
        populations.Builder()(wrong)


MB = 2**20


def test_what_fits_is_counted_in_states_and_steps():
    # Of 0.8 x 1000 - 100 MB: together two states and a step each; in turns a state, and once a copy and a step.
    assert capacity.fitting(1000 * MB, 100 * MB, 10 * MB, 15 * MB, together=True) == 700 // 35
    assert capacity.fitting(1000 * MB, 100 * MB, 10 * MB, 15 * MB, together=False) == (700 - 25) // 10
    assert capacity.fitting(1000 * MB, 900 * MB, 10 * MB, 0, together=True) == 1  # what does not fit is tried
    assert capacity.most_open(1024) == 224 and capacity.most_open(64) == 1
    assert capacity.most_open() >= 1


def test_what_a_member_needs_is_its_state_and_what_its_step_holds(plans):
    plan, mesh = plans["wide"], data_mesh(1)
    trainer = Trainer(plan.family, mesh, len(plan.train), plan.augment)
    example = plan.train.gather(np.zeros(1, np.int64))
    size = sum(x.nbytes for x in jax.tree.leaves(trainer.init(0, example)))
    shared, state, work = capacity.needed(plan, mesh, together=False)
    assert (shared, state, work) == (plan.train.nbytes, size, 0)
    assert capacity.needed(plan, mesh, together=True)[2] > 0
    streamed = dataclasses.replace(plan, train=Streamed(plan.train.spec, "streamed", {}, plan.train))
    shared, state, _ = capacity.needed(streamed, mesh, together=False)
    accelerator = plan.config["accelerator"]
    batches = (accelerator["prefetch"] + 1) * accelerator["steps_per_call"] * plan.config["batch_size"]
    assert (shared, state) == (0, size + batches * 64)
    assert 0 < capacity.free_memory(mesh) == pytest.approx(capacity.host_memory(), rel=0.5)


def test_the_machine_and_its_control_groups_say_what_is_free(tmp_path):
    files = {
        "proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n",
        "proc/self/cgroup": "1:name=systemd:/\n0::/job/step\n",
        "sys/fs/cgroup/job/step/memory.max": "max\n",
        "sys/fs/cgroup/job/memory.max": "3000000\n",
        "sys/fs/cgroup/job/memory.current": "2000000\n",
        "sys/fs/cgroup/job/memory.stat": "anon 1\ninactive_file 500000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert capacity.host_memory(tmp_path) == 1_500_000
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text("max\n")
    assert capacity.host_memory(tmp_path) == 4000 * 1024
    (tmp_path / "proc/self/cgroup").unlink()
    assert capacity.host_memory(tmp_path) == 4000 * 1024
    (tmp_path / "proc/meminfo").unlink()
    assert capacity.host_memory(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Training:
    """In the place of ``train_population``: fails where there are more members than fit, or one of the bad."""

    def __init__(self, fit: int, bad: tuple[str, ...]):
        self.fit, self.bad = fit, bad
        self.tried: list[list[str]] = []
        self.together: list[bool] = []

    def __call__(self, plans, workdirs, mesh, together, hopeless, interrupt):
        self.tried.append(list(plans))
        self.together.append(together)
        if len(plans) > self.fit:
            raise RuntimeError("RESOURCE_EXHAUSTED: out\n of memory")
        for (name, plan), workdir in zip(plans.items(), workdirs, strict=True):
            if name in self.bad:
                raise UserError(f"no {name}")
            assert workdir.read_config()["seed"] == plan.config["seed"] == int(name.partition("=")[2])
            write_json(workdir.evaluation, {"finished": True})


class Told(Listed):
    """A queue that writes down which runs have ended."""

    def __init__(self, *args):
        super().__init__(*args)
        self.told: list[str] = []

    def ended(self, run):
        self.told.append(run.name)


def trained(monkeypatch, folder: Path, training: Training, **options) -> tuple[Told, list[SweepRun]]:
    """A sweep of eight seeds, trained by the executor."""
    built = populations.Builder()
    runs = [SweepRun(f"seed={seed}", {"seed": seed}, folder) for seed in range(8)]
    queue = Told(runs, {run.name: built(config(**run.overrides)) for run in runs})
    monkeypatch.setattr(loop, "train_population", training)
    sweep = Sweep(folder, "", (), "population", tuple(runs))
    assert population.train(sweep, queue, Options(**options)) == 0
    return queue, runs


def test_what_is_too_much_for_memory_becomes_less_and_one_run_at_fault_stops_nobody(monkeypatch, tmp_path, capsys):
    training = Training(fit=2, bad=("seed=5",))
    monkeypatch.setattr(capacity, "most_members", lambda plan, mesh, together: 1 // 0)
    queue, runs = trained(monkeypatch, tmp_path, training)
    said = capsys.readouterr().out
    assert [len(tried) for tried in training.tried] == [8, 4, 2, 2, 4, 2, 1, 2]
    assert sorted(queue.told) == [run.name for run in runs]
    assert {run.name: run.state for run in runs if run.state != "finished"} == {"seed=5": "failed"}
    assert runs[5].reason == "no seed=5"
    assert "8 runs: RuntimeError: RESOURCE_EXHAUSTED: out of memory; goes on in smaller parts" in said
    assert "cannot tell how much memory a member needs: ZeroDivisionError" in said
    again = Training(fit=8, bad=())
    queue, runs = trained(monkeypatch, tmp_path, again)
    assert again.tried == [["seed=5"]] == [queue.told] and not runs[5].workdir.failure.exists()


def test_members_at_once_are_at_most_so_many_in_equal_parts(monkeypatch, tmp_path):
    training = Training(fit=8, bad=())
    trained(monkeypatch, tmp_path / "in turns", training, members=3)
    assert [len(tried) for tried in training.tried] == [2, 3, 3] and training.together == [False] * 3
    training = Training(fit=8, bad=())
    trained(monkeypatch, tmp_path / "together", training, members=7, together=True)
    assert [len(tried) for tried in training.tried] == [4, 4] and training.together == [True] * 2


def test_a_search_is_asked_for_more_when_a_batch_has_ended(monkeypatch, tmp_path):
    asked: list[int] = []  # how many runs had ended, at each question

    class Asked(Told):
        adaptive = True

        def take(self):
            asked.append(len(self.told))
            return super().take()

        def verdict(self, run):
            return Verdict("too slow", 20) if run.name == "seed=4" else None

    def train(plans, workdirs, mesh, together, hopeless, interrupt):
        for name, workdir in zip(plans, workdirs, strict=True):
            if not hopeless(name):
                write_json(workdir.evaluation, {"finished": True})

    monkeypatch.setitem(globals(), "Told", Asked)
    queue, runs = trained(monkeypatch, tmp_path, train, members=3)
    assert asked == [0, 0, 0, 3, 3, 3, 6, 6, 6, 8]
    assert {run.name: run.reason for run in runs if run.state != "finished"} == {"seed=4": "too slow"}
    assert sorted(queue.told) == [run.name for run in runs]


def test_runs_for_several_platforms_or_without_their_devices_are_refused(plans, tmp_path):
    with pytest.raises(UserError, match="run device: .*devices=99"):
        population.ready(plans)
    runs = [SweepRun("a", {}, tmp_path), SweepRun("b", {"accelerator.platform": "gpu"}, tmp_path)]
    assert [population.platform(config(), part) for part in (runs[:1], runs[1:], [])] == ["cpu", "gpu", "cpu"]
    with pytest.raises(UserError, match=r"platform varies, cpu, gpu; accepted .*: one"):
        population.platform(config(), runs)
