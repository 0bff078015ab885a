"""The worked examples of docs/diffusion.md work: its sampler converges, its path is one, its network trains."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import build, networks, processes, samplers
from genjax.processes.grids import UniformGrid
from genjax.processes.paths import Linear
from genjax.train.loop import train
from genjax.train.sharding import data_mesh
from tests.test_readme import ROOT, blocks, load

PAGE = "docs/diffusion.md"
TABLES = {"PATHS": processes.PATHS, "SAMPLERS": samplers.SAMPLERS}


@pytest.fixture
def examples(tmp_path):
    sources = blocks(PAGE, "python")
    assert len(sources) == 3
    return [load(source, tmp_path / f"my_example_{i}.py") for i, source in enumerate(sources)]


def gaussian_error(sampler, num: int) -> float:
    """Largest error on data N(2, 0.5^2), whose flow is known: every value keeps its place in units of the deviation."""
    path, noise = Linear(), jnp.linspace(-2.0, 2.0, 9)[:, None]

    def denoise(x, t):
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        return 2.0 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - 2.0 * alpha)

    keys = jax.random.split(jax.random.key(0), 9)
    drawn = sampler(num_steps=num)(denoise, path, UniformGrid().points(path, num), noise, keys)
    return float(np.abs(drawn - (2.0 + 0.5 * noise)).max())


def test_the_sampler_converges(examples):
    errors = [gaussian_error(examples[0].Averaging, num) for num in (10, 40, 160)]
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1] and errors[2] < 0.05, errors


def test_the_path_is_one(examples):
    path = examples[1].Trigonometric()
    t = jnp.linspace(0.01, 0.99, 20)
    np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1.0, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(path.alpha))(t), path.d_alpha(t), rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(path.sigma))(t), path.d_sigma(t), rtol=1e-5)
    np.testing.assert_allclose(path.t_of_noise_level(path.noise_level(t)), t, rtol=1e-4)


def test_all_three_train_together(examples, tmp_path, monkeypatch):
    sampler, path, network = examples
    monkeypatch.setitem(samplers.SAMPLERS, "averaging", sampler.Averaging)
    monkeypatch.setitem(processes.PATHS, "trigonometric", path.Trigonometric)
    monkeypatch.setitem(networks.DENOISERS, "plain", network.Plain)
    config = importlib.import_module("configs.diffusion.digits_flow").get_config("accelerator=cpu,smoke")
    given = build.to_plain(config)
    given["model"] |= {
        "network": {"name": "plain", "width": 8},
        "path": {"name": "trigonometric"},
        "sampler": {"name": "averaging", "num_steps": 3},
    }
    plan = build.experiment(given)
    from genjax.io.workdir import Workdir, read_json

    with Workdir.open_for_training(tmp_path / "run", plan.config) as workdir:
        assert train(plan, workdir, data_mesh(1)).signal is None
        assert np.isfinite(read_json(workdir.evaluation)["evaluators"]["eval"]["scalars"]["loss"])


def test_every_config_is_on_the_page():
    page = (ROOT / PAGE).read_text()
    missing = [path.name for path in (ROOT / "configs/diffusion").glob("[a-z]*.py") if path.name not in page]
    assert not missing
