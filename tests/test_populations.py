"""Which runs of a sweep train as one population, and how many of them fit into memory."""

from __future__ import annotations

import copy

import pytest

from configs.vae import digits_conv
from genjax import build, populations
from genjax.types import UserError


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
