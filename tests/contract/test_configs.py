"""The contract of a config, on every file in ``configs/*/``; noise stands in for the data sets of TFDS."""

from __future__ import annotations

import functools
import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import build, rng
from genjax.data import records, sources
from genjax.families import FAMILIES
from genjax.io.workdir import Workdir
from genjax.train.loop import train
from genjax.train.sharding import data_mesh
from genjax.train.steps import Trainer
from genjax.types import ImageSpec, UserError
from tests import fakes

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*/*.py") if path.name != "__init__.py")
SIZES = (ImageSpec(28, 28, 1, 10), ImageSpec(32, 32, 3, 10), ImageSpec(64, 64, 3, 10))


@pytest.fixture(autouse=True)
def _fake_sources(monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "tfds", fakes.tfds)
    monkeypatch.setattr(records, "tfds", fakes.tfds)  # where stacked digits come from


def module(path: str) -> ModuleType:
    return importlib.import_module(path.removesuffix(".py").replace("/", "."))


@functools.cache
def _config(path: str, arg: str) -> str:
    return json.dumps(build.to_plain(module(path).get_config(arg)))


def config(path: str, arg: str = "accelerator=cpu") -> dict:
    """A config of one's own to change."""
    return json.loads(_config(path, arg))


def networks_of(model: Mapping[str, Any]) -> tuple[str, ...]:
    """The family and the names of its networks."""
    return (model["family"], *(model[part]["name"] for part in FAMILIES[model["family"]].networks))


def pixels(path: str) -> int:
    data = config(path)["data"]
    named = {"tfds": "name", "stacked": "base"}
    return fakes.TFDS[data["options"][named[data["source"]]]][0].pixels if data["source"] in named else 0


def smallest() -> list[str]:
    """One config for every family and network, on the smallest images there are."""
    chosen = {networks_of(config(path)["model"]): path for path in sorted(CONFIGS, key=pixels, reverse=True)}
    return sorted(chosen.values())


def sections(tree: dict, prefix: tuple = ()) -> list[tuple]:
    """The path of every section, the whole config being ``()``."""
    inner = [
        path for name, value in tree.items() if isinstance(value, dict) for path in sections(value, (*prefix, name))
    ]
    return [prefix, *inner]


def test_every_family_has_a_config():
    assert {networks_of(config(path)["model"])[0] for path in CONFIGS} == set(FAMILIES)


@pytest.mark.parametrize("path", CONFIGS)
def test_the_docstring_has_the_command(path):
    text = module(path).__doc__ or ""
    assert "python -m experiments.train" in text and path in text


@pytest.mark.parametrize("path", CONFIGS)
def test_an_accelerator_changes_its_own_section_only(path):
    rest = [{**config(path, f"accelerator={name}"), "accelerator": None} for name in ("cpu", "gpu", "tpu")]
    assert rest[0] == rest[1] == rest[2]


@pytest.mark.parametrize("path", CONFIGS)
def test_it_builds_at_full_size(path):
    plan = build.experiment(config(path))
    family, example = plan.family, plan.train.gather(np.zeros(1, np.int64))
    state = Trainer(family, data_mesh(1), len(plan.train), plan.augment).abstract_state(example)
    batch = plan.train.gather(np.arange(family.slice_size))
    index = np.arange(family.slice_size, dtype=np.int32)
    slices = jax.tree.map(lambda array: np.stack([array] * family.microbatches), batch)
    after, _ = jax.eval_shape(family.train_step, state, slices, rng.root(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    jax.eval_shape(family.eval_step, state, {**batch, "index": index}, rng.root(0))
    if family.sample is not None:
        keys = jax.eval_shape(rng.example_keys, rng.root(0), index)
        assert jax.eval_shape(family.sample, state, keys, index).shape == (family.slice_size, *plan.train.spec.shape)
    assert plan.total_steps >= plan.checkpoint_every and plan.total_steps >= plan.log_every


@pytest.mark.parametrize("path", CONFIGS)
def test_a_surplus_key_is_refused_by_name_in_every_section(path):
    for section in sections(config(path, "accelerator=cpu,smoke")):
        given = config(path, "accelerator=cpu,smoke")
        functools.reduce(lambda tree, name: tree[name], section, given)["surplus"] = 1
        with pytest.raises(UserError, match="surplus"):
            build.experiment(given)


@pytest.mark.parametrize("path", smallest())
def test_a_smoke_run_trains_and_every_evaluator_reports(path, tmp_path, capsys):
    given = {**config(path, "accelerator=cpu,smoke"), "total": "2 steps"}
    plan = build.experiment(given)
    with Workdir.open_for_training(tmp_path, plan.config) as workdir:
        assert train(plan, workdir, data_mesh(1)).signal is None
    record = json.loads(workdir.evaluation.read_text())
    numbers = [value for found in record["evaluators"].values() for value in found["scalars"].values()]
    assert numbers and all(math.isfinite(value) for value in numbers), record
    pictures = {image.stem for image in workdir.images.iterdir()}
    silent = {scheduled.name for scheduled in plan.evaluators} - record["evaluators"].keys() - pictures
    assert not silent, f"nothing from {silent}"


def one_of_each_network() -> list[str]:
    """A fake for every family and network."""
    models = {name: fake.model for name, fake in fakes.FAKES.items()}
    return list({networks_of(models[name]): name for name in models}.values())


@pytest.mark.parametrize("spec", SIZES, ids=lambda spec: "x".join(map(str, spec.shape)))
@pytest.mark.parametrize("name", one_of_each_network())
def test_every_family_takes_the_usual_image_sizes(name, spec):
    family = fakes.FAKES[name].family(spec)
    batch = {
        "image": jnp.zeros((family.microbatches, family.slice_size, *spec.shape), jnp.uint8),
        "label": jnp.zeros((family.microbatches, family.slice_size), jnp.int32),
    }
    state = jax.eval_shape(family.init, rng.root(0), {part: array[0] for part, array in batch.items()})
    jax.eval_shape(family.train_step, state, batch, rng.root(0))
