"""What everything stands on: random keys, named trees, errors, and the way from a config to objects."""

from __future__ import annotations

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import build, rng, tree
from genjax.families import FAMILIES
from genjax.families.vae import vae
from genjax.networks import ConvVAE
from genjax.types import ImageSpec, UserError, lookup

# Random keys.


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def check_streams(step_key, stream):
    """Every (seed, step, name) has a key of its own, and the order of asking does not matter."""
    names = ("params", "dropout", "latent", "data", "eval", "train", "real", "fake")
    asked = [(seed, step, name) for seed in (0, 1, 2**31) for step in (0, 1, 100) for name in names]

    def keys(order):
        return {a: data(stream(step_key(rng.root(a[0]), a[1]), a[2])) for a in order}

    found = keys(asked)
    assert len(set(found.values())) == len(asked)
    assert keys(reversed(asked)) == found
    nested = {data(stream(stream(rng.root(0), first), second)) for first in names for second in names}
    assert len(nested) == len(names) ** 2


def test_streams_are_independent_of_each_other_and_of_order():
    check_streams(rng.step_key, rng.stream)
    assert data(rng.stream(rng.root(3), "latent")) == data(rng.stream(rng.root(jnp.uint32(3)), "latent"))


@pytest.mark.parametrize(
    "broken",
    [
        (lambda key, step: key, rng.stream),
        (rng.step_key, lambda key, name: jax.random.fold_in(key, len(name))),
        (rng.step_key, lambda key, name: jax.random.key(sum(name.encode()))),
    ],
    ids=["no_step", "length", "forgets_the_key"],
)
def test_the_stream_check_rejects(broken):
    with pytest.raises(AssertionError):
        check_streams(*broken)


def test_streams_stay_what_they_are():
    """Runs are repeated from their seed, so that these numbers may not change from one version to the next."""
    key = rng.stream(rng.step_key(rng.root(0), 7), "latent")
    by_hand = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 7), 1827798387)
    assert data(key) == data(by_hand)


def check_example_keys(example_keys):
    key = rng.root(0)
    whole = [data(k) for k in example_keys(key, jnp.arange(10))]
    assert len(set(whole)) == 10
    parts = [data(k) for start in range(0, 10, 3) for k in example_keys(key, jnp.arange(start, min(start + 3, 10)))]
    assert parts == whole
    assert [data(k) for k in example_keys(key, jnp.array([7, 2, 2]))] == [whole[7], whole[2], whole[2]]


def test_example_keys_are_the_same_at_any_batch_size():
    check_example_keys(rng.example_keys)
    for broken in (
        lambda key, index: jax.random.split(key, len(index)),
        lambda key, index: jnp.stack([key] * len(index)),
    ):
        with pytest.raises(AssertionError):
            check_example_keys(broken)


# Trees.

TREE = {"b": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "a": [jnp.full(2, 2.0), jnp.array(5, jnp.int32)]}


def test_leaves_have_paths():
    assert list(tree.named_leaves(TREE)) == ["a/0", "a/1", "b/bias", "b/kernel"]
    assert tree.size(TREE) == 12 and tree.size({}) == 0
    named = tree.map_named(lambda name, leaf: f"{name}:{leaf.ndim}", TREE)
    assert named == {"b": {"kernel": "b/kernel:2", "bias": "b/bias:1"}, "a": ["a/0:1", "a/1:0"]}


def test_norm_is_of_all_leaves_and_summed_in_float32():
    assert float(tree.norm(TREE)) == pytest.approx(np.sqrt(6 + 8 + 25))
    ones = {"a": jnp.ones(3000, jnp.bfloat16), "b": jnp.ones(1096, jnp.bfloat16)}
    assert float(tree.norm(ones)) == 64.0 and tree.norm(ones).dtype == jnp.float32  # bfloat16 would stop at 16
    assert float(tree.norm({})) == 0.0


def test_lerp_moves_from_the_first_to_the_second():
    other = jax.tree.map(lambda leaf: leaf + 4, TREE)
    for weight in (0.0, 0.25, 1.0):
        mixed = tree.lerp(TREE, other, weight)
        np.testing.assert_allclose(mixed["b"]["kernel"], 1.0 + 4.0 * weight)
        assert int(mixed["a"][1]) == 9 and mixed["a"][1].dtype == jnp.int32


def test_table_lists_and_adds_up():
    lines = tree.table(TREE).splitlines()
    assert lines[0] == "| name | shape | dtype | values |" and len(lines) == 2 + 4 + 1
    assert "| b/kernel | (2, 3) | float32 | 6 |" in lines and lines[-1] == "| total | | | 12 |"


def test_types():
    spec = ImageSpec(4, 6, 3)
    assert spec.shape == (4, 6, 3) and spec.pixels == 72 and spec.classes == 0
    assert lookup({"a": 1}, "a", "x") == 1
    with pytest.raises(UserError) as caught:
        lookup({"b": 1, "a": 2}, "c", "model.family")
    assert str(caught.value) == "model.family='c' is unknown; accepted: a, b"


# From a config to objects.

ADAM = {"name": "adam", "learning_rate": 1e-3}
CONV_VAE = {"name": "conv_vae", "latent_dim": 4, "width": 8}
DCGAN = {"name": "dcgan", "width": 4}
MODELS = {
    "vae": {"family": "vae", "network": CONV_VAE, "likelihood": "bernoulli"},
    "classifier": {"family": "classifier", "network": {"name": "cnn", "features": (4,), "strides": (2,)}},
    "gan": {"family": "gan", "generator": DCGAN, "discriminator": DCGAN, "latent_dim": 4},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """npz files: 8x8 with labels, 8x8 without, and 9x9, which no strided network takes."""
    folder = tmp_path_factory.mktemp("arrays")
    generator = np.random.default_rng(0)
    for name, side in {"labelled": 8, "plain": 8, "odd": 9}.items():
        content = {"images": generator.integers(0, 256, (40, side, side), np.uint8)}
        if name == "labelled":
            content["labels"] = np.arange(40) % 3
        np.savez(folder / f"{name}.npz", **content)
    return folder


@pytest.fixture
def config(files):
    """A valid config of the named family, changed at dotted paths; ``None`` deletes the key."""

    def make(family="vae", images="labelled", **changes):
        accelerator = {
            "platform": "cpu",
            "devices": 1,
            "fsdp": 1,
            "tensor": 1,
            "compute_dtype": "float32",
            "deterministic": False,
            "accumulation": 1,
            "prefetch": 1,
        }
        accelerator |= {"steps_per_call": 1, "memory_budget_mb": 16}
        sections = {
            "seed": 0, "batch_size": 8, "total": "2 epochs", "log_every": "2 steps", "eval_batch_size": 8,
            "data": {"source": "arrays", "train": "train", "test": "test", "augment": (),
                     "options": {"path": str(files / f"{images}.npz")}},
            "model": MODELS[family],
            "optim": ADAM if family != "gan" else {"generator": ADAM, "discriminator": ADAM},
            "evaluators": {"eval": {"name": "mean", "every": "1 epochs"}},
            "checkpoint": {"every": "50%", "keep": "", "best": "", "mode": "max"},
            "divergence": {"policy": "stop"},
            "accelerator": accelerator,
        }  # fmt: skip
        sections = copy.deepcopy(sections)
        for path, value in changes.items():
            *parents, last = path.split("__")
            section = sections
            for parent in parents:
                section = section[parent]
            if value is None:
                del section[last]
            else:
                section[last] = value
        return sections

    return make


@pytest.mark.parametrize("family", MODELS)
def test_a_valid_config_is_built(config, family):
    plan = build.experiment(config(family))
    assert plan.family.name == family and plan.family.spec == ImageSpec(8, 8, 1, 3)
    assert (len(plan.train), len(plan.test)) == (36, 4)
    assert (plan.total_steps, plan.log_every, plan.checkpoint_every) == (9, 2, 5)  # 36 / 8 examples, rounded up
    assert [(e.name, e.every) for e in plan.evaluators] == [("eval", 5)] and plan.cadences() == (2, 5, 5)
    assert plan.keep_every is None and [step for step in range(1, 10) if plan.saves(step)] == [5]


def test_checkpoints_that_are_kept_have_a_cadence_of_their_own(config):
    plan = build.experiment(config(checkpoint__keep="30%"))
    assert (plan.checkpoint_every, plan.keep_every) == (5, 3) and plan.cadences() == (2, 5, 3, 5)
    assert [step for step in range(1, 10) if plan.saves(step)] == [3, 5, 6, 9]


def test_what_a_config_may_say(config):
    plan = build.experiment(
        config(
            evaluators__eval__every="end",
            accelerator__accumulation=4,
            model__beta=2,  # a whole number where a float is wanted
            optim__schedule="cosine",
            model__conditional=True,
            data__augment=["flip"],
        )
    )
    assert plan.evaluators[0].every is None and plan.cadences() == (2, 5)
    assert (plan.family.microbatches, plan.family.slice_size, plan.family.conditional) == (4, 2, True)
    assert plan.config["data"]["augment"] == ("flip",)
    batch = {"image": np.zeros((2, 8, 8, 1), np.uint8), "label": np.zeros(2, np.int32)}
    shapes = jax.eval_shape(plan.family.init, rng.root(0), batch)
    assert tree.named_leaves(shapes.params)["vae/to_latent/kernel"].shape[1] == 2 * 4
    for accumulation in (1, 4):
        gan = config("gan", model__discriminator_updates=3, accelerator__accumulation=accumulation, total="1 epochs")
        plan = build.experiment(gan)
        assert (plan.family.microbatches, plan.family.slice_size) == (3 * accumulation, 8 // accumulation)
        assert plan.family.examples_per_step == 24 and plan.total_steps == 2  # 36 / 24


WRONG = [
    # Unknown and missing.
    ("vae", {"sed": 1}, "sed is no setting; accepted: seed, "),
    ("vae", {"batch_size": None}, "batch_size is missing"),
    ("vae", {"data__sorce": "x"}, "data.sorce is no setting"),
    ("vae", {"data__source": "mnist"}, "data.source='mnist' is unknown; accepted: arrays, "),
    ("vae", {"data__options": {}}, "data.options.path is missing"),
    ("vae", {"data__options__pth": "x"}, "data.options.pth is no setting (did you mean 'path'?)"),
    ("vae", {"data__options__split": "x"}, "data.options.split is no setting"),
    ("vae", {"model__family": None}, "model.family is missing"),
    ("vae", {"model__family": "vea"}, "model.family='vea' is unknown; accepted: classifier, diffusion, gan, vae"),
    ("vae", {"model__likelihod": "bernoulli"}, "model.likelihod is no setting (did you mean 'likelihood'?)"),
    ("vae", {"model__likelihood": "poisson"}, "model.likelihood='poisson' is unknown; accepted: bernoulli, "),
    ("vae", {"model__network": None}, "model.network is missing; it names a network, one of conv_vae"),
    ("vae", {"model__network__name": "unet"}, "model.network.name='unet' is unknown; accepted: conv_vae"),
    ("vae", {"model__network__name": None}, "model.network.name is missing; accepted: conv_vae"),
    ("vae", {"model__network__widht": 8}, "model.network.widht is no setting (did you mean 'width'?)"),
    ("vae", {"model__network__image_shape": (8, 8, 1)}, "model.network.image_shape is no setting"),
    ("vae", {"model__optimizer": 1}, "model.optimizer is no setting"),
    ("gan", {"model__accumulation": 2}, "model.accumulation is no setting"),
    ("gan", {"model__loss": "hinge"}, "model.loss='hinge' is unknown; accepted: minimax, non_saturating"),
    ("vae", {"optim__name": "adm"}, "optim.name='adm' is unknown; accepted: adam, sgd"),
    ("vae", {"optim__name": None}, "optim.name is missing"),
    ("vae", {"optim__learning_rate": None}, "optim.learning_rate is missing"),
    ("vae", {"optim__beta1": 0.5}, "optim.beta1 is no setting; accepted: learning_rate, b1, b2"),
    ("vae", {"optim__total_steps": 5}, "optim.total_steps is no setting"),
    ("vae", {"optim": {"generator": ADAM}}, "optim"),
    ("gan", {"optim": ADAM}, "generator"),
    ("gan", {"optim__generator": None}, "accepted: a section for each"),
    ("gan", {"optim__judge": ADAM}, "judge"),
    ("gan", {"optim__generator__b3": 0.1}, "optim.generator.b3 is no setting"),
    ("vae", {"evaluators__eval__name": "maen"}, "evaluators.eval.name='maen' is unknown; accepted: accuracy_score, "),
    ("vae", {"evaluators__eval__every": None}, "evaluators.eval.every"),
    ("vae", {"evaluators__eval__num": 3}, "evaluators.eval.num is no setting"),
    ("vae", {"data__augment": ("rotate",)}, "rotate"),
    ("vae", {"accelerator__compute_dtype": "float8"}, "accelerator.compute_dtype='float8' is unknown"),
    ("vae", {"checkpoint__mode": "best"}, "checkpoint.mode='best' is unknown; accepted: max, min"),
    # Types.
    ("vae", {"batch_size": "8"}, "batch_size='8' is a str; accepted: int"),
    ("vae", {"batch_size": 8.0}, "batch_size=8.0 is a float; accepted: int"),
    ("vae", {"batch_size": True}, "batch_size=True is a bool; accepted: int"),
    ("vae", {"total": 100}, "total=100 is a int; accepted: str"),
    ("vae", {"model__beta": "1"}, "model.beta='1' is a str; accepted: float"),
    ("vae", {"model__beta": True}, "model.beta=True is a bool; accepted: float"),
    ("vae", {"model__conditional": 1}, "model.conditional=1 is a int; accepted: bool"),
    ("vae", {"model__network": "conv_vae"}, "model.network"),
    ("vae", {"model__network__latent_dim": 4.0}, "model.network.latent_dim=4.0 is a float; accepted: int"),
    ("classifier", {"model__network__features": 4}, "model.network.features=4 is a int; accepted: tuple"),
    ("gan", {"model__discriminator_updates": "two"}, "model.discriminator_updates='two' is a str; accepted: int"),
    ("vae", {"data": "mnist"}, "data is a str; accepted: a section"),
    ("vae", {"evaluators__eval": "mean"}, "evaluators.eval"),
    ("vae", {"evaluators__eval__every": 5}, "evaluators.eval.every=5"),
    # Values.
    ("vae", {"batch_size": 0}, "batch_size=0 is too small"),
    ("vae", {"seed": -1}, "seed=-1 is too small"),
    ("gan", {"model__discriminator_updates": 0}, "discriminator_updates=0"),
    ("vae", {"total": "five epochs"}, "total='five epochs' is no duration"),
    ("vae", {"total": "50%"}, "total='50%' is no duration; accepted: a number and one of steps, epochs, examples,"),
    ("vae", {"log_every": "0 steps"}, "log_every='0 steps' must be more than zero"),
    ("vae", {"checkpoint__every": "always"}, "checkpoint.every='always' is no duration"),
    ("vae", {"checkpoint__keep": "always"}, "checkpoint.keep='always' is no duration"),
    ("vae", {"checkpoint__keep": None}, "checkpoint.keep is missing"),
    ("vae", {"evaluators__eval__every": "never"}, "evaluators.eval.every='never' is no duration"),
    ("vae", {"accelerator__accumulation": 3}, "batch_size=8 is no multiple of accelerator.accumulation=3"),
    ("gan", {"accelerator__accumulation": 3}, "batch_size=8 is no multiple of accelerator.accumulation=3"),
    ("vae", {"optim__warmup_steps": 9}, "optim.warmup_steps=9 must be at least 0 and less than the 9 steps"),
    ("classifier", {"model__network__strides": (1, 2)}, "model.network: 1 features but 2 strides"),
    # What the data can't do.
    ("vae", {"images": "plain", "model__conditional": True}, "model.conditional=True needs labels; this data set has"),
    ("gan", {"images": "plain", "model__conditional": True}, "model.conditional=True needs labels; this data set has"),
    ("classifier", {"images": "plain"}, "the classifier needs labels of at least 2 classes; this data set has 0"),
    ("vae", {"images": "odd"}, "model.network: image size 9x9 does not fit"),
    ("gan", {"images": "odd"}, "model.generator: image size 9x9 does not fit"),
]


@pytest.mark.parametrize(("family", "changes", "message"), WRONG, ids=[f"{f}-{next(iter(c))}" for f, c, _ in WRONG])
def test_a_bad_config_stops_in_one_line_that_says_what_is_accepted(config, family, changes, message):
    with pytest.raises(UserError) as caught:
        build.experiment(config(family, **changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_family_that_does_not_accumulate_says_so(config, monkeypatch):
    def constructor(spec, network, optimizer, slice_size): ...

    monkeypatch.setitem(FAMILIES, "vae", dataclasses.replace(FAMILIES["vae"], constructor=constructor))
    with pytest.raises(UserError, match="accelerator.accumulation=2: this family does not accumulate; accepted: 1"):
        build.experiment(config(accelerator__accumulation=2))


def test_splits_that_do_not_agree_are_refused(files, config):
    np.savez(
        files / "shapes.npz", train_images=np.zeros((9, 8, 8), np.uint8), test_images=np.zeros((9, 8, 12), np.uint8)
    )
    with pytest.raises(UserError, match=r"train images are \(8, 8, 1\) and test images \(8, 12, 1\); they must agree"):
        build.experiment(config(images="shapes"))


def test_named_constructs_and_turns_a_value_error_into_one_for_the_user():
    table = {"vae": ConvVAE}
    network = build.named("net", table, {"name": "vae", "width": 16}, image_shape=(8, 8, 1), unheard_of=3)
    assert (network.width, network.image_shape) == (16, (8, 8, 1))
    with pytest.raises(UserError, match="^net: image size 7x8 does not fit"):
        build.named("net", table, {"name": "vae"}, image_shape=(7, 8, 1))
    with pytest.raises(UserError, match="^net.image_shape is missing$"):
        build.named("net", table, {"name": "vae"})


def test_to_plain_gives_the_same_for_lists_and_tuples():
    given = {"a": [1, (2, [3])], "b": {"c": "x"}}
    assert build.to_plain(given) == {"a": (1, (2, (3,))), "b": {"c": "x"}}


def test_the_argument_check_accepts_what_the_constructor_takes():
    build.check_arguments(
        "model", vae, {"beta": 1, "conditional": True}, ("spec", "network", "optimizer", "slice_size")
    )
    with pytest.raises(UserError, match="model.slice_size is missing"):
        build.check_arguments("model", vae, {}, ("spec", "network", "optimizer"))
