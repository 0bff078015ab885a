"""Samplers against trajectories of diffusers' schedulers, recorded by tests/reference/diffusers_trajectories.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path as FilePath

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.processes import PATHS
from genjax.processes.paths import Path
from genjax.samplers import SAMPLERS
from tests.mixtures import Mixture, draw, keys_of

RECORDED = np.load(FilePath(__file__).parent / "reference" / "diffusers_trajectories.npz")
DATA = Mixture(*(tuple(RECORDED[name].tolist()) for name in ("weights", "means", "scales")))


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@dataclasses.dataclass(frozen=True)
class ByLevel(Path):
    """alpha^2 + sigma^2 = 1 with the noise level as t, whatever schedule the levels come from."""

    t_min: float = 1e-3
    t_max: float = 1e3

    def alpha(self, t):
        return 1.0 / jnp.sqrt(1.0 + jnp.square(t))

    def sigma(self, t):
        return t * self.alpha(t)

    def d_alpha(self, t):
        return -t * self.alpha(t) ** 3

    def d_sigma(self, t):
        return self.alpha(t) ** 3

    def noise_level(self, t):
        return t

    def t_of_noise_level(self, r):
        return r


@dataclasses.dataclass(frozen=True)
class Case:
    """What of the record is compared with which sampler.

    Attributes:
      sampler: its name.
      path: on which it runs.
      settings: but the number of steps.
      stride: which of the recorded levels are the grid's points: every first or second.
      inner: which of the recorded states is that at the last point, None where it is another one.
    """

    sampler: str
    path: Path
    settings: dict = dataclasses.field(default_factory=dict)
    stride: int = 1
    inner: int | None = -2


VP, VE, FLOW = ByLevel(), PATHS["edm"](), PATHS["linear"]()
CASES = {
    "ddim": Case("ddim", VP),
    "ddim_eta": Case("ddim", VP, {"eta": 0.6}),
    "ddpm_posterior": Case("ancestral", VP),
    "ddpm_forward": Case("ancestral", VP, {"variance": "forward"}),
    "euler_ancestral": Case("ancestral", VE),
    "euler": Case("euler", VE),
    "heun": Case("heun", VE, stride=2),
    "dpmpp_2m": Case("dpmpp_2m", VP),
    "dpmpp_2m_karras": Case("dpmpp_2m", VP),
    # Every other level is the middle of a step, which the sampler finds itself.
    "dpmpp_2s": Case("dpmpp_2s", VP, stride=2),
    # The state at the last point is recorded before its correction.
    "unipc": Case("unipc", VP, inner=None),
    "unipc_karras": Case("unipc", VP, inner=None),
    "flow_euler": Case("euler", FLOW),
    "flow_heun": Case("heun", FLOW, stride=2),
    "edm_churn": Case("edm_churn", VE, {"s_churn": 8.0, "s_min": 0.1, "s_max": 20.0, "s_noise": 1.01}),
    # The record ends at the lowest level, without a step to clean data.
    "predictor_corrector": Case("predictor_corrector", VE, {"snr": 0.2, "corrector_steps": 2}, inner=-1),
    "multistep_consistency": Case("multistep_consistency", VE),
}


def grid(name):
    case = CASES[name]
    levels = RECORDED[f"{name}/levels"][:: case.stride]
    # Our first step is of first order, theirs of second; one that goes nowhere is no difference.
    return np.append(levels[:1], levels) if case.sampler == "dpmpp_2s" else levels


def use_noise(monkeypatch, noise):
    """Gives the sampler ``noise`` ``[steps, ...]`` instead of its own."""
    for module in ("base", "deterministic", "stochastic"):
        monkeypatch.setattr(f"genjax.samplers.{module}.step_noise", lambda keys, step, like: jnp.asarray(noise)[step])


def run(name, monkeypatch, final=True, path=None, sampler=None, settings=None, time=lambda t: t, noise=lambda z: z):
    """What the sampler gives where the scheduler was given the same noise; the keywords make it another one."""
    case, t, x = CASES[name], grid(name), jnp.asarray(RECORDED[f"{name}/start"])
    path = path or case.path
    if f"{name}/noise" in RECORDED:
        recorded = RECORDED[f"{name}/noise"]  # the last step may ask for one more, which counts for nothing
        use_noise(monkeypatch, noise(np.append(recorded, np.zeros_like(recorded[:1]), axis=0)))
    settings = case.settings if settings is None else settings
    sample = SAMPLERS[sampler or case.sampler](num_steps=len(t), **settings)
    denoise, keys = DATA.denoiser(path), keys_of(len(x))
    return draw(sample, lambda x, t: denoise(x, time(t)), path, t, x, keys, final=final)


def check(name, values, final=True):
    expected = RECORDED[f"{name}/states"][-1 if final else CASES[name].inner]
    np.testing.assert_allclose(values, expected, atol=1e-5, rtol=1e-6)


FINAL = [name for name in CASES if name != "predictor_corrector"]
INNER = [name for name, case in CASES.items() if case.inner is not None]


@pytest.mark.parametrize("name", FINAL)
def test_samples_are_those_of_diffusers(name, monkeypatch):
    check(name, run(name, monkeypatch))


@pytest.mark.parametrize("name", INNER)
def test_the_state_before_the_last_step_is_that_of_diffusers(name, monkeypatch):
    check(name, run(name, monkeypatch, final=False), final=False)


@pytest.mark.parametrize("name", CASES)
def test_the_record_rejects_a_denoiser_that_is_told_the_point_before(name, monkeypatch):
    points = jnp.asarray(np.sort(grid(name)))

    def before(t):
        return points[jnp.minimum(jnp.searchsorted(points, t) + 1, len(points) - 1)]

    final = name in FINAL
    with pytest.raises(AssertionError):
        check(name, run(name, monkeypatch, final, time=before), final)


@pytest.mark.parametrize("name", CASES)
def test_the_record_rejects_another_path(name, monkeypatch):
    final = name in FINAL
    with pytest.raises(AssertionError):
        check(name, run(name, monkeypatch, final, path=VE if CASES[name].path is VP else VP), final)


@pytest.mark.parametrize("name", [name for name in CASES if f"{name}/noise" in RECORDED])
def test_the_record_rejects_noise_of_another_step(name, monkeypatch):
    final = name in FINAL
    with pytest.raises(AssertionError):
        check(name, run(name, monkeypatch, final, noise=lambda z: np.roll(z, 1, axis=0)), final)


@pytest.mark.parametrize(
    "name, sampler, settings",
    [
        ("ddim", "euler", {}),
        ("ddim_eta", "ddim", {"eta": 0.5}),
        ("ddpm_posterior", "ancestral", {"variance": "forward"}),
        ("ddpm_forward", "ancestral", {"variance": "posterior"}),
        ("heun", "euler", {}),
        ("flow_heun", "dpmpp_2m", {}),
        ("dpmpp_2m", "ddim", {}),
        ("dpmpp_2m", "unipc", {}),
        ("dpmpp_2s", "dpmpp_2m", {}),
        ("unipc_karras", "dpmpp_2m", {}),
        ("edm_churn", "edm_churn", {"s_churn": 8.0, "s_min": 0.1, "s_max": 20.0}),
        ("edm_churn", "edm_churn", {"s_churn": 8.0, "s_noise": 1.01}),
        ("multistep_consistency", "ancestral", {}),
    ],
)
def test_the_record_rejects_the_next_of_kin(name, sampler, settings, monkeypatch):
    with pytest.raises(AssertionError):
        check(name, run(name, monkeypatch, sampler=sampler, settings=settings))
