"""Samplers against trajectories of diffusers' schedulers, recorded by tests/reference/diffusers_trajectories.py."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path as FilePath

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.processes import PATHS
from genjax.processes.paths import Path
from genjax.samplers import SAMPLERS
from tests.mixtures import Mixture, keys_of

RECORDED = np.load(FilePath(__file__).parent / "reference" / "diffusers_trajectories.npz")
DATA = Mixture(*(tuple(RECORDED[name].tolist()) for name in ("weights", "means", "scales")))


pytestmark = pytest.mark.usefixtures("x64")


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
      final: whether the record ends with the step to clean data.
    """

    sampler: str
    path: Path
    settings: dict = dataclasses.field(default_factory=dict)
    stride: int = 1
    final: bool = True


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
    "unipc": Case("unipc", VP),
    "unipc_karras": Case("unipc", VP),
    "flow_euler": Case("euler", FLOW),
    "flow_heun": Case("heun", FLOW, stride=2),
    "edm_churn": Case("edm_churn", VE, {"s_churn": 8.0, "s_min": 0.1, "s_max": 20.0, "s_noise": 1.01}),
    "predictor_corrector": Case("predictor_corrector", VE, {"snr": 0.2, "corrector_steps": 2}, final=False),
    "multistep_consistency": Case("multistep_consistency", VE),
}


def grid(name):
    case = CASES[name]
    levels = RECORDED[f"{name}/levels"][:: case.stride]
    # Our first step is of first order, theirs of second; one that goes nowhere is no difference.
    return np.append(levels[:1], levels) if case.sampler == "dpmpp_2s" else levels


@functools.cache
def program(name, sampler=None, path=None, settings=None):
    """A compiled (x, t, time the denoiser is told at each t, noise) -> samples; the keywords make another sampler.

    It ends where the record ends: after the step to clean data, but for the predictor-corrector.
    """
    case = CASES[name]
    settings = case.settings if settings is None else dict(settings)
    sample = SAMPLERS[sampler or case.sampler](num_steps=len(grid(name)), **settings)
    path, denoise = path or case.path, DATA.denoiser(path or case.path)

    def run(x, t, told, noise):
        def seen(x, at):
            return denoise(x, jnp.interp(at, t[::-1], told[::-1]))

        with pytest.MonkeyPatch.context() as patch:
            for module in ("base", "deterministic", "stochastic"):
                patch.setattr(f"genjax.samplers.{module}.step_noise", lambda keys, step, like: noise[step])
            return sample(seen, path, t, x, keys_of(len(x)), final=case.final)

    return jax.jit(run)


def error(name, told=None, noise=None, **other):
    """The largest difference to the record."""
    t, x = grid(name), RECORDED[f"{name}/start"]
    if noise is None:
        noise = noise_of(name)
    end = program(name, **other)(x, t, t if told is None else told, noise)
    return float(np.abs(end - RECORDED[f"{name}/states"][-1]).max())


def noise_of(name):
    """What the scheduler was given; the last step may ask for one more, which counts for nothing."""
    start = RECORDED[f"{name}/start"]
    noise = RECORDED[f"{name}/noise"] if f"{name}/noise" in RECORDED else np.zeros((0, *start.shape))
    return np.append(noise, np.zeros((1, *start.shape)), axis=0)


@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_diffusers(name):
    t, noise = grid(name), noise_of(name)
    assert error(name) < 1e-5
    assert error(name, told=np.append(t[:1], t[:-1])) > 1e-3  # a denoiser that is told the point before
    if len(noise) > 1:
        assert error(name, noise=np.roll(noise, 1, axis=0)) > 1e-2


@pytest.mark.parametrize(
    "name", ["ddim", "ddim_eta", "ddpm_posterior", "heun", "dpmpp_2m", "dpmpp_2s", "unipc", "flow_euler"]
)
def test_the_record_rejects_another_path(name):
    assert error(name, path=VE if CASES[name].path is VP else VP) > 1e-3


@pytest.mark.parametrize(
    "name, sampler, settings",
    [
        ("ddim", "euler", ()),
        ("ddim_eta", "ddim", (("eta", 0.5),)),
        ("ddpm_posterior", "ancestral", (("variance", "forward"),)),
        ("ddpm_forward", "ancestral", ()),
        ("heun", "euler", ()),
        ("flow_heun", "dpmpp_2m", ()),
        ("dpmpp_2m", "ddim", ()),
        ("dpmpp_2m", "unipc", ()),
        ("dpmpp_2s", "ddim", ()),
        ("unipc_karras", "dpmpp_2m", ()),
        ("edm_churn", "edm_churn", (("s_churn", 8.0), ("s_min", 0.1), ("s_max", 20.0))),
        ("edm_churn", "edm_churn", (("s_churn", 8.0), ("s_noise", 1.01))),
        ("multistep_consistency", "ancestral", ()),
    ],
)
def test_the_record_rejects_the_next_of_kin(name, sampler, settings):
    assert error(name, sampler=sampler, settings=settings) > 1e-3
