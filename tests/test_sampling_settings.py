"""Other settings for a trained run: what may change, what a new name keeps, and what flags mean."""

from __future__ import annotations

import copy
import json
import math

import pytest

from configs.diffusion.digits_flow import get_config
from configs.vae.digits_conv import get_config as get_vae
from experiments import cli
from genjax import build
from genjax.families import FAMILIES
from genjax.types import UserError
from tests.fakes import FAKES

CONFIG = build.to_plain(get_config("accelerator=cpu,smoke"))
CONFIG["model"]["sampler"] = {"name": "edm_churn", "num_steps": 9, "s_churn": 10.0, "s_noise": 1.01}


def changed(**settings):
    return build.with_sampling(CONFIG, {f"model.{name.replace('__', '.')}": value for name, value in settings.items()})


def check_replacing(with_sampling):
    def sampler(**settings):
        named = {f"model.sampler.{name}": value for name, value in settings.items()}
        return with_sampling(CONFIG, named)["model"]["sampler"]

    assert sampler(num_steps=4) == {"name": "edm_churn", "num_steps": 4, "s_churn": 10.0, "s_noise": 1.01}
    # What both have stays, the rest of the old one goes; the other order on the command line is no other wish.
    assert sampler(name="ddim") == {"name": "ddim", "num_steps": 9}
    assert sampler(name="ddim", eta=0.5, num_steps=3) == {"name": "ddim", "eta": 0.5, "num_steps": 3}
    assert sampler(eta=0.5, name="ddim") == {"name": "ddim", "eta": 0.5, "num_steps": 9}
    # Asked for by name, a setting is not dropped in silence: the new sampler refuses it.
    assert sampler(s_churn=5.0, name="ddim") == {"name": "ddim", "num_steps": 9, "s_churn": 5.0}
    assert sampler(name="adaptive") == {"name": "adaptive"}
    assert sampler(name="edm_churn") == CONFIG["model"]["sampler"]


def test_a_part_may_be_replaced_whole():
    before = copy.deepcopy(CONFIG)
    check_replacing(build.with_sampling)
    assert before == CONFIG
    model = changed(guidance_scale=2.0, grid__name="karras", grid__rho=5.0, guidance_interval=(0.1, 2.0))["model"]
    assert (model["guidance_scale"], model["guidance_interval"]) == (2.0, (0.1, 2.0))
    assert model["grid"] == {"name": "karras", "rho": 5.0}
    others = [name for name in CONFIG["model"] if name not in FAMILIES["diffusion"].sampling]
    assert all(model[name] == CONFIG["model"][name] for name in others)
    assert {**changed(guidance_scale=2.0), "model": None} == {**CONFIG, "model": None}


def keeps_all(config, settings):
    model = {**config["model"], "sampler": dict(config["model"]["sampler"])}
    for name, value in settings.items():
        model["sampler"][name.rpartition(".")[2]] = value
    return {**config, "model": model}


def keeps_none(config, settings):
    if "model.sampler.name" not in settings:
        return build.with_sampling(config, settings)
    return {**config, "model": {"sampler": {name.rpartition(".")[2]: value for name, value in settings.items()}}}


def in_the_order_given(config, settings):
    for name, value in settings.items():
        config = build.with_sampling(config, {name: value})
    return config


@pytest.mark.parametrize("broken", [keeps_all, keeps_none, in_the_order_given])
def test_the_check_of_replacing_rejects(broken):
    with pytest.raises(AssertionError):
        check_replacing(broken)


@pytest.mark.parametrize(
    "name", ["model.path.name", "model.network.width", "model.label_dropout", "model.sampler", "model", "seed", "",
             "optim.learning_rate", "model.guidance_scale.x", "model.family", "sampler.num_steps", "model.sampler."]
)  # fmt: skip
def test_what_training_depends_on_stays(name):
    with pytest.raises(UserError) as caught:
        build.with_sampling(CONFIG, {name: 1})
    accepted = "model.sampler.SETTING, model.grid.SETTING, model.guidance_scale, model.guidance_interval"
    assert str(caught.value) == f"--set={name}: not to be set on a trained run; accepted: {accepted}"


def test_a_family_without_such_settings_says_so():
    with pytest.raises(UserError, match="accepted: none, a vae has no setting that acts on sampling alone"):
        build.with_sampling(build.to_plain(get_vae("accelerator=cpu")), {"model.beta": 2.0})


def test_names_are_checked_before_anything_is_kept():
    with pytest.raises(UserError, match=r"model\.sampler\.name='huen' is unknown; accepted: adaptive, ancestral"):
        changed(sampler__name="huen")
    with pytest.raises(UserError, match=r"model\.sampler\.name=\(1, 2\) is a tuple; accepted: str"):
        changed(sampler__name=(1, 2))


def test_what_is_listed_for_sampling_is_an_argument_of_the_family():
    import inspect

    for entry in FAMILIES.values():
        assert set(entry.sampling) <= set(inspect.signature(entry.constructor).parameters)
        options = dict.fromkeys(inspect.signature(entry.hparams).parameters, True)
        assert not set(entry.sampling) & (
            set(entry.hparams(**options)) | set(entry.networks)
        )  # those are in the trained state


# Flags.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4), ("-1", -1), ("0.5", 0.5), ("1e-3", 1e-3), ("inf", math.inf), ("heun", "heun"), ("true", True),
        ("False", False), ("none", None), ("0.2,5", (0.2, 5)), ("(0.2, inf)", (0.2, math.inf)), ("(3,)", (3,)),
        ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_a_value_is_what_it_looks_like(text, value):
    found = cli.settings_of([f"model.x={text}"])
    assert found == {"model.x": value} and type(found["model.x"]) is type(value)


def test_several_settings():
    given = ["model.sampler.num_steps=4", "--config.x=1"[2:], "model.grid.name=karras"]
    assert cli.settings_of(given) == {"model.sampler.num_steps": 4, "x": 1, "model.grid.name": "karras"}
    assert cli.settings_of([]) == {}


@pytest.mark.parametrize("given", ["num_steps", "=4", "model.x=", ""])
def test_what_is_no_setting_is_refused(given):
    with pytest.raises(UserError) as caught:
        cli.settings_of([given])
    assert f"--set={given}: accepted: a setting and its value, such as" in str(caught.value)


def test_a_setting_twice_is_refused():
    with pytest.raises(UserError, match="--set=config.a.b=5: a.b is set already; accepted: each setting once"):
        cli.settings_of(["a.b=4", "config.a.b=5"])


def test_a_family_records_how_it_samples_whether_or_not_the_config_states_a_default():
    fake = FAKES["diffusion-unet"]
    plain = fake.family().sampling
    stated = fake.family(guidance_interval=(0.0, math.inf), sampler={"num_steps": 3, "name": "euler"}).sampling
    assert plain == stated and json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["guidance_interval"] == [0.0, "inf"] and plain["sampler"]["num_steps"] == 3
    for name, value in (("guidance_scale", 2.0), ("sampler", {"name": "euler", "num_steps": 4})):
        assert fake.family(**{name: value}).sampling != plain
    assert fake.family(learned_weight=True).sampling == plain  # it acts on training
