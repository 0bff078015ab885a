"""The order of operations of training: what is due, who goes on, and what is refused on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.vae import digits_conv
from genjax import build, populations
from genjax.io.workdir import Workdir, open_population
from genjax.train import loop
from genjax.train.member import checkpoints_of
from genjax.train.sharding import mesh_of
from genjax.types import UserError
from tests.cli.commands import checkpoint_arrays, records

TOTAL = 10


def config_of(**changes):
    config = digits_conv.get_config("accelerator=cpu,smoke")
    config.total, config.log_every, config.checkpoint.every = f"{TOTAL} steps", "1 steps", "4 steps"
    config.model.network = {"name": "dense_vae", "latent_dim": 2, "hidden": (4,)}
    config.model.conditional = False
    config.evaluators = {"eval": {"name": "mean", "every": "3 steps", "limit": 0}}
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return build.to_plain(config)


def trained(folder: Path, plans, together: bool = False, hopeless=lambda name: "") -> loop.Outcome:
    workdirs = open_population(folder, {name: plan.config for name, plan in plans.items()})
    try:
        return loop.train_population(plans, workdirs, mesh_of(config_of()["accelerator"]), together, hopeless)
    finally:
        for workdir in workdirs:
            workdir.close()


@pytest.mark.parametrize("together", [False, True])
def test_a_hopeless_member_is_saved_and_the_others_go_on_without_it(tmp_path, monkeypatch, together):
    """Two of three are called hopeless at step 6: the third is what it is alone, in a smaller program."""
    configs = {f"seed={seed}": config_of(seed=seed) for seed in range(3)}
    built = populations.Builder()
    plans = {name: built(config) for name, config in configs.items()}
    sizes: list[int] = []
    for kind in (loop.InTurns, loop.Together):
        begin = kind.__init__
        monkeypatch.setattr(
            kind,
            "__init__",
            lambda self, feeds, states, begin=begin: (sizes.append(len(states)), begin(self, feeds, states))[1],
        )
    asked: dict[str, list[str]] = {name: [] for name in plans}
    kept = "seed=1"

    def hopeless(name: str) -> str:
        asked[name].append("")
        return "too slow" if name != kept and len(asked[name]) == 2 else ""

    outcome = trained(tmp_path / "many", plans, together, hopeless)
    assert not outcome.diverged and sizes == ([3, 1] if together else [3])
    assert {name: len(times) for name, times in asked.items()} == {name: 3 if name == kept else 2 for name in plans}
    for name, plan in plans.items():
        steps = checkpoints_of(plan, Workdir(tmp_path / "many" / name), read_only=True).steps()
        assert steps[-1] == (TOTAL if name == kept else 6)
        assert records(tmp_path / "many" / name)[-1]["step"] == steps[-1]
    trained(tmp_path / "alone", {kept: plans[kept]})
    alone = checkpoint_arrays(tmp_path / "alone" / kept)
    for key, array in checkpoint_arrays(tmp_path / "many" / kept).items():
        np.testing.assert_allclose(array, alone[key], rtol=1e-4 if together else 0, atol=1e-6 if together else 0)


def test_a_best_metric_that_no_evaluation_gives_ends_the_run_at_the_first(tmp_path):
    plan = build.experiment(config_of(checkpoint__best="eval/elbow"))
    with pytest.raises(
        UserError, match="checkpoint.best=eval/elbow: no evaluation during training gives it; accepted: "
    ) as error:
        trained(tmp_path, {"run": plan})
    assert "eval/elbo, " in str(error.value) and "\n" not in str(error.value)
    assert records(tmp_path / "run")[-1]["step"] == 3
