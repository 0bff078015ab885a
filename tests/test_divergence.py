"""What a run does about a step it can't go on from: it is found, told, undone, and undone the same after a kill."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import base
from configs.vae import digits_conv
from genjax import build, rng
from genjax.data.order import batch_indices
from genjax.families.adversarial import adversarial_train_step
from genjax.families.base import learning_rates, new_state
from genjax.io.checkpoint import Checkpoints
from genjax.io.workdir import Workdir, open_population, read_json
from genjax.io.writer import read_metrics
from genjax.train import divergence, loop
from genjax.train.divergence import FLAG, Divergence, Journal, first_flagged, flagged, reseeded
from genjax.train.loop import DivergedError, train, train_population
from genjax.train.member import Member, checkpoints_of
from genjax.train.optim import sgd
from genjax.train.plan import Experiment
from genjax.train.sharding import mesh_of
from genjax.types import UserError
from tests.cli.commands import checkpoint_arrays, records

BAD, SAVED, TOTAL, SEED = 7, 4, 10, 3


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Every run here has the same few programs."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(tmp_path_factory.mktemp("compiled")))
    jax.config.update(names[1], 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def config_of(policy: str = "rollback", **changes):
    config = digits_conv.get_config("accelerator=cpu,smoke")
    config.seed, config.total, config.log_every = SEED, f"{TOTAL} steps", "1 steps"
    config.checkpoint.every = f"{SAVED} steps"
    config.model.network = {"name": "dense_vae", "latent_dim": 2, "hidden": (4,)}
    config.model.conditional = False
    config.evaluators = {}
    config.divergence.policy = policy
    config.update_from_flattened_dict(changes)
    return build.to_plain(config)


def poisoned(plan: Experiment, seeds=(SEED,), step: int = BAD, where=("params", "loss")) -> Experiment:
    """Runs with these seeds get a NaN at that step; others are the same program, unharmed."""

    def train_step(state, batch, key):
        after, metrics = plan.family.train_step(state, batch, key)
        hit = (after.step == step) & jnp.any(state.hparams["seed"] == jnp.asarray(seeds, jnp.uint32))
        spoil = lambda x: jnp.where(hit, jnp.nan, x)  # noqa: E731
        after = after.replace(params=jax.tree.map(spoil, after.params) if "params" in where else after.params)
        return after, metrics | ({"loss": spoil(metrics["loss"])} if "loss" in where else {})

    return dataclasses.replace(plan, family=dataclasses.replace(plan.family, train_step=train_step))


def run(folder: Path, plan: Experiment):
    with Workdir.open_for_training(folder, plan.config) as workdir:
        return train(plan, workdir, mesh_of(plan.config["accelerator"]))


def same(folder: Path, wanted: Path) -> None:
    assert records(folder) == records(wanted)
    arrays = checkpoint_arrays(wanted)
    assert checkpoint_arrays(folder).keys() == arrays.keys()
    for name, array in checkpoint_arrays(folder).items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    journals = [read_json(path / "rollbacks.json") for path in (folder, wanted)]
    assert journals[0] == journals[1]


@pytest.fixture(scope="module")
def recovered(tmp_path_factory):
    """A run that went back once and was not disturbed otherwise."""
    folder = tmp_path_factory.mktemp("divergence") / "recovered"
    run(folder, poisoned(build.experiment(config_of())))
    return folder


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_device_flags_what_is_not_finite_or_too_large(value):
    good = {"loss": jnp.float32(1.0), "generator_grad_norm": jnp.float32(5.0)}
    judge = jax.jit(flagged, static_argnums=1)
    assert not judge(good, 0.0) and not judge(good, 5.0)
    assert judge(good, 4.9) and judge(good | {"kl": jnp.float32(value)}, 0.0)
    assert not judge({"loss": jnp.float32(9.0)}, 4.9)  # the limit is on gradients alone
    members = {name: jnp.stack([x, x, jnp.float32(value)]) for name, x in good.items()}
    assert jax.vmap(flagged)(members).tolist() == [False, False, True]


def test_the_first_flagged_step_is_told_with_what_is_bad_about_it():
    values = {"loss": [1, 2, np.nan, np.nan], "grad_norm": [1, 9, 2, np.inf], "kl": [0, 0, 0, 0]}
    values = {name: np.asarray(value, float) for name, value in values.items()}
    flags = [flagged({n: jnp.asarray(v[i]) for n, v in values.items()}, 8.0) for i in range(4)]
    assert first_flagged(values | {FLAG: np.stack(flags)}, 8.0) == (1, {"grad_norm": 9.0})
    flags = [flagged({n: jnp.asarray(v[i]) for n, v in values.items()}) for i in range(4)]
    at, bad = first_flagged(values | {FLAG: np.stack(flags)})
    assert at == 2 and list(bad) == ["loss"]
    assert first_flagged({"loss": np.ones(3), FLAG: np.zeros(3, bool)}) is None


def test_stopping_leaves_the_evidence(tmp_path):
    plan = poisoned(build.experiment(config_of("stop", **{"accelerator.steps_per_call": 3})))
    with pytest.raises(DivergedError, match=rf"^step {BAD}: loss nan; training stopped. The last checkpoint is step 4"):
        run(tmp_path / "run", plan)
    record = read_json(tmp_path / "run" / "diverged.json")
    found = record["evidence"]
    size = plan.family.examples_per_step
    assert record["step"] == BAD and list(record["metrics"]) == ["loss"]
    assert found["batch_indices"] == batch_indices(SEED, BAD - 1, size, len(plan.train), np).tolist()
    assert found["batch_indices"] != batch_indices(SEED, BAD, size, len(plan.train), np).tolist()
    assert found["key"] == jax.random.key_data(rng.step_key(rng.root(SEED), BAD - 1)).tolist()
    assert [step["step"] for step in found["metrics"]] == list(range(1, BAD + 1))
    logged = {step["step"]: step["train/grad_norm"] for step in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    assert {s["step"]: s["grad_norm"] for s in found["metrics"][: len(logged)]} == logged and max(logged) < BAD
    assert np.isnan(found["metrics"][-1]["loss"]) and np.isnan(found["parameter_norms_when_noticed"]["vae"])
    assert not (tmp_path / "run" / "rollbacks.json").exists()


def test_a_run_goes_back_and_on_with_other_data_and_a_lower_rate(recovered, tmp_path):
    run(tmp_path / "good", poisoned(build.experiment(config_of()), seeds=[SEED + 1]))
    good, found = records(tmp_path / "good"), records(recovered)
    assert [r["step"] for r in found] == list(range(1, TOTAL + 1)) and len(found) == len(good)
    assert found[:SAVED] == good[:SAVED]
    assert all(one["train/loss"] != other["train/loss"] for one, other in zip(found[SAVED:], good[SAVED:], strict=True))
    (entry,) = read_json(recovered / "rollbacks.json")["rollbacks"]
    assert (entry["number"], entry["step"], entry["to"]) == (1, BAD, SAVED) and entry["seed"] == reseeded(SEED, 1)
    assert read_json(recovered / "evaluation.json")["rollbacks"] == 1
    assert "rollbacks" not in read_json(tmp_path / "good" / "evaluation.json")
    arrays, wanted = checkpoint_arrays(recovered), checkpoint_arrays(tmp_path / "good")
    assert int(arrays["hparams/seed"]) == entry["seed"]
    assert arrays["hparams/learning_rate/vae"] == wanted["hparams/learning_rate/vae"] / 2
    assert all(np.isfinite(array).all() for array in arrays.values())


class Killed(BaseException):
    """As kill -9 does, it runs past everything that mends or notes an error."""


def run_killed(folder: Path, plan: Experiment, owner: type, name: str, calls: int) -> None:
    """A run that is killed at the end of such a call of ``owner.name``."""
    original, seen = getattr(owner, name), []

    @functools.wraps(original)
    def killing(*args, **kwargs):
        result = original(*args, **kwargs)
        seen.append(name)
        if len(seen) == calls:
            raise Killed
        return result

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, killing)
        with pytest.raises(Killed):
            run(folder, plan)
    assert not (folder / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (Journal, "append", 1),  # written, and nothing else done
        (Member, "open", 2),  # restored
        (loop._Loop, "_advance", BAD + 2),
        (loop._Loop, "_advance", BAD + 3),
        (Member, "save", 2),
    ],
    ids=["journal", "restored", "first step", "later step", "save"],
)
def test_a_run_killed_around_a_rollback_ends_as_if_it_had_not_been(recovered, tmp_path, owner, name, calls):
    plan = poisoned(build.experiment(config_of()))
    run_killed(tmp_path / "run", plan, owner, name, calls)
    run(tmp_path / "run", plan)
    same(tmp_path / "run", recovered)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """A run that diverged again before it had saved anything new, and what it is of."""
    plan = poisoned(build.experiment(config_of(**{"checkpoint.every": "2 steps"})), (SEED, reseeded(SEED, 1)))
    folder = tmp_path_factory.mktemp("divergence") / "twice"
    run(folder, plan)
    return folder, plan


def test_a_checkpoint_that_a_run_diverges_from_again_is_given_up(twice):
    folder, _ = twice
    first, second = read_json(folder / "rollbacks.json")["rollbacks"]
    assert (first["step"], first["to"], "given_up" in first) == (BAD, BAD - 1, False)
    assert (second["step"], second["to"], second["given_up"]) == (BAD, BAD - 3, BAD - 1)
    assert (folder / "checkpoints" / f"{BAD - 1}.diverged").is_dir()
    assert [record["step"] for record in records(folder)] == list(range(1, TOTAL + 1))
    arrays, begun = checkpoint_arrays(folder), first["evidence"]["hparams"]["learning_rate/vae"]
    assert int(arrays["hparams/seed"]) == reseeded(SEED, 2)
    assert arrays["hparams/learning_rate/vae"] == np.float32(begun) / 4  # both rollbacks count, to whatever they went


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [(Journal, "append", 2), (Checkpoints, "give_up", 1), (Member, "open", 3), (Member, "save", 5)],
    ids=["journal", "given up", "restored", "save"],
)
def test_a_run_killed_while_it_gives_a_checkpoint_up_ends_the_same(twice, tmp_path, owner, name, calls):
    folder, plan = twice
    run_killed(tmp_path / "run", plan, owner, name, calls)
    run(tmp_path / "run", plan)
    same(tmp_path / "run", folder)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    """The metrics of a step are from before its update, so those of the next would have been the first to say so."""
    spoilt = lambda policy: poisoned(build.experiment(config_of(policy)), step=2 * SAVED, where=("params",))  # noqa: E731
    told = rf"^step {2 * SAVED}: largest_parameter/vae nan; training stopped. The last checkpoint is step {SAVED};"
    with pytest.raises(DivergedError, match=told):
        run(tmp_path / "stopped", spoilt("stop"))
    run(tmp_path / "recovered", spoilt("rollback"))
    (entry,) = read_json(tmp_path / "recovered" / "rollbacks.json")["rollbacks"]
    assert (entry["step"], entry["to"]) == (2 * SAVED, SAVED)
    assert entry["evidence"]["metrics"][-1]["step"] == 2 * SAVED


def test_parameters_that_the_last_step_spoils_are_no_result(tmp_path):
    plan = poisoned(build.experiment(config_of("stop")), step=TOTAL, where=("params",))
    with pytest.raises(DivergedError, match=rf"^step {TOTAL}: largest_parameter/vae nan"):
        run(tmp_path / "run", plan)
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_rollbacks_come_to_an_end(tmp_path):
    seeds = [SEED, *(reseeded(SEED, number) for number in (1, 2))]
    plan = poisoned(build.experiment(config_of(**{"divergence.rollbacks": 2})), seeds, where=("loss",))
    with pytest.raises(DivergedError, match="stopped after 2 rollbacks"):
        run(tmp_path / "run", plan)
    entries = read_json(tmp_path / "run" / "rollbacks.json")["rollbacks"]
    assert [(entry["to"], entry["seed"]) for entry in entries] == [(SAVED, seed) for seed in seeds[1:]]
    rates = [entry["evidence"]["hparams"]["learning_rate/vae"] for entry in entries]
    assert rates[1] == rates[0] / 2


def test_a_run_goes_back_to_its_beginning_where_nothing_was_saved(tmp_path):
    run(tmp_path / "run", poisoned(build.experiment(config_of()), step=2))
    (entry,) = read_json(tmp_path / "run" / "rollbacks.json")["rollbacks"]
    assert (entry["step"], entry["to"]) == (2, 0)
    assert [record["step"] for record in records(tmp_path / "run")] == list(range(1, TOTAL + 1))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("divergence") / "good"
    run(folder, poisoned(build.experiment(config_of(seed=SEED + 1))))
    return folder


@pytest.mark.parametrize("together", [False, True])
def test_a_member_goes_back_alone_or_is_frozen(recovered, good, tmp_path, together):
    for policy in ("rollback", "stop"):
        plans = {
            name: dataclasses.replace(
                build.experiment(config_of(policy, seed=seed)), config=config_of(policy, seed=seed)
            )
            for name, seed in {"bad": SEED, "good": SEED + 1}.items()
        }
        spoilt = poisoned(plans["bad"])
        plans = {name: dataclasses.replace(plan, family=spoilt.family) for name, plan in plans.items()}
        folder = tmp_path / policy
        workdirs = open_population(folder, {name: plan.config for name, plan in plans.items()})
        try:
            outcome = train_population(plans, workdirs, mesh_of(config_of()["accelerator"]), together)
        finally:
            for workdir in workdirs:
                workdir.close()
        assert list(outcome.diverged) == ([] if policy == "rollback" else ["bad"])
        wanted = {"good": good, **({"bad": recovered} if policy == "rollback" else {})}
        for name, path in wanted.items():
            assert records(folder / name) == records(path) or together
            for key, array in checkpoint_arrays(path).items():
                close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
                check: Callable = close if together else np.testing.assert_array_equal
                check(checkpoint_arrays(folder / name)[key], array, err_msg=f"{name} {key}")
    assert checkpoints_of(plans["bad"], Workdir(folder / "bad"), read_only=True).steps() == [SAVED]
    assert read_json(folder / "bad" / "diverged.json")["evidence"]["batch_indices"]


def test_of_several_updates_in_a_step_the_largest_gradient_is_held_to_the_limit():
    """Each slice's mean is the gradient of its update."""
    player = lambda generator, discriminator, batch, key: (discriminator["params"]["w"] * batch["x"], {}, {})  # noqa: E731
    optimizer = sgd(0.1, total_steps=10, momentum=0.0)
    optimizers = dict.fromkeys(("generator", "discriminator"), optimizer)
    params = {name: {"params": {"w": jnp.ones(())}} for name in optimizers}
    state = new_state(params, optimizers, learning_rates(optimizers))
    step = adversarial_train_step(player, player, optimizers, 3, 1, {})
    _, metrics = step(state, {"x": jnp.array([[1.0], [46.0], [1.0]])}, rng.root(0))
    assert float(metrics["discriminator_grad_norm"]) == 46.0
    assert flagged(metrics, 20.0) and not flagged(metrics, 50.0)


def test_a_gradient_past_its_limit_is_divergence(tmp_path):
    plan = build.experiment(config_of("stop", **{"divergence.max_grad_norm": 1e-3}))
    with pytest.raises(DivergedError, match=r"^step 1: grad_norm \S+ \(max_grad_norm is 0.001\); training stopped. No"):
        run(tmp_path / "run", plan)


def test_rollbacks_to_what_is_gone_are_forgotten(tmp_path):
    mesh = mesh_of(config_of()["accelerator"])
    plan = build.experiment(config_of())
    state = loop.Trainer(plan.family, mesh, len(plan.train), plan.augment).init(
        SEED, plan.train.gather(np.zeros(1, int)), plan.family.hparams
    )
    rate = float(state.hparams["learning_rate/vae"])
    journal = Journal(tmp_path / "rollbacks.json")
    for to, seed in ((4, 11), (8, 12), (8, 13)):
        journal.append({"step": to + 1, "to": to, "seed": seed, "rate_factor": 0.5})

    def resumed(step: int, behind: int) -> tuple[int, float, int]:
        journal = Journal(tmp_path / "rollbacks.json")
        hparams = journal.resume(step, behind, state, mesh).hparams
        kept = len(Journal(tmp_path / "rollbacks.json").entries)
        return int(hparams["seed"]), round(float(hparams["learning_rate/vae"]) / rate, 6), kept

    assert resumed(12, 3) == (SEED, 1.0, 3)  # saved after all of them
    assert resumed(8, 1) == (13, 0.25, 3)  # both that went back to it
    assert resumed(4, 0) == (11, 0.5, 1)  # the checkpoint of step 8 is gone, and with it what happened after
    assert resumed(2, 0) == (SEED, 1.0, 0)
    for to, seed in ((8, 21), (4, 22)):
        journal = Journal(tmp_path / "rollbacks.json")
        journal.append({"step": 9, "to": to, "seed": seed, "rate_factor": 0.5})
    assert resumed(4, 0) == (22, 0.25, 2)  # the checkpoint of step 8 was given up, and counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "pray"}, "divergence: policy='pray' is unknown; accepted: stop, rollback"),
        ({"rollbacks": 0}, "divergence: rollbacks=0; accepted: a positive whole number"),
        ({"rate_factor": 2.0}, "divergence: rate_factor=2.0; accepted: a number above 0, at most 1"),
        ({"max_grad_norm": -1.0}, "divergence: max_grad_norm=-1.0; accepted: a number from 0"),
        ({"policy": "rollback", "rate_factor": 1.0, "reseed": False}, "would diverge again"),
        ({"polcy": "stop"}, "divergence.polcy is no setting (did you mean 'policy'?)"),
    ],
)
def test_a_bad_policy_is_refused_in_one_line(change, message):
    config = config_of()
    config["divergence"] = {**config["divergence"], **change}
    with pytest.raises(UserError) as caught:
        build.experiment(config)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_from_before_there_were_policies_stops(tmp_path):
    assert base(digits_conv.args.parse("accelerator=cpu")).divergence.to_dict() == dataclasses.asdict(Divergence())
    config = config_of("stop")
    with Workdir.open_for_training(tmp_path, {k: v for k, v in config.items() if k != "divergence"}) as workdir:
        assert workdir.read_config()["divergence"] == dataclasses.asdict(Divergence())
    assert divergence.Divergence().policy == "stop"


ENTRY = '{"to": 4, "seed": 5, "rate_factor": 0.5}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "is no record with 'rollbacks'; is the file damaged") for text in ("{}", "[]", "3")),
        ('{"rollbacks": 1}', "is not {.*}; is the file damaged"),
        ('{"rollbacks": [' + ENTRY + ', {"seed": 5, "rate_factor": 0.5}]}', "rollback 2 has no number 'to'"),
        ('{"rollbacks": [' + ENTRY.replace("5,", '"a",') + "]}", "rollback 1 has no number 'seed'"),
        ('{"rollbacks": [' + ENTRY.replace("0.5", "null") + "]}", "rollback 1 has no number 'rate_factor'"),
        ('{"rollbacks": [' + ENTRY.replace("5,", "-5,") + "]}", "rollback 1 has no number 'seed'"),
        ('{"rollbacks": [null]}', "rollback 1 has no number"),
    ],
)
def test_a_journal_that_is_none_is_named(tmp_path, text, message):
    path = tmp_path / "rollbacks.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        Journal(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.write_text('{"rollbacks": [' + ENTRY + "]}")
    assert Journal(path).entries == [{"to": 4, "seed": 5, "rate_factor": 0.5}]
