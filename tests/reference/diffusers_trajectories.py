"""Records what the schedulers of diffusers do with a known denoiser, for tests/test_samplers_reference.py.

    python -m venv reference && reference/bin/pip install diffusers==0.42.1 torch==2.13.0
    reference/bin/python tests/reference/diffusers_trajectories.py

writes diffusers_trajectories.npz beside this file. The data is a mixture of two Gaussians in each value, whose exact
denoiser stands for the network. For each scheduler: ``levels`` the noise levels sigma / alpha of its steps, ``start``
the noise it starts from, ``noise`` what it adds in the order in which it asks, ``states`` what comes out of each step.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

# The project's own environment has neither, so this file is no test and asks for them by name.
NAMES = ("torch", "diffusers", "diffusers.schedulers.deprecated.scheduling_karras_ve")
torch, diffusers, deprecated = (importlib.import_module(name) for name in NAMES)

WEIGHTS, MEANS, SCALES = np.array([0.3, 0.7]), np.array([-0.8, 0.6]), np.array([0.3, 0.4])
SHAPE = (2, 3)
VP = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
recorded: dict[str, np.ndarray] = {"weights": WEIGHTS, "means": MEANS, "scales": SCALES}


def denoise(x, alpha, sigma):
    """E[x_0 | alpha x_0 + sigma eps = x], elementwise."""
    x = np.asarray(x, np.float64)[..., None]
    variance = (alpha * SCALES) ** 2 + sigma**2
    log_weight = np.log(WEIGHTS) - 0.5 * (x - alpha * MEANS) ** 2 / variance - 0.5 * np.log(variance)
    weight = np.exp(log_weight - log_weight.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    return (weight * (MEANS + alpha * SCALES**2 * (x - alpha * MEANS) / variance)).sum(-1)


def noise_of(x, level, scaled):
    """The estimate of eps at a noise level; ``scaled`` where alpha^2 + sigma^2 = 1, otherwise alpha = 1."""
    level = float(level)
    alpha = 1.0 / np.sqrt(1.0 + level**2) if scaled else 1.0
    return torch.tensor((x.numpy() - alpha * denoise(x.numpy(), alpha, alpha * level)) / (alpha * level))


class Source:
    """Noise that a scheduler is given instead of its own, and is recorded."""

    def __init__(self, seed: int):
        self.rng, self.given = np.random.default_rng(seed), []

    def __call__(self, shape, *args, dtype=torch.float64, **kwargs):
        self.given.append(self.rng.standard_normal(tuple(shape)))
        return torch.tensor(self.given[-1], dtype=dtype)

    def into(self, scheduler) -> Source:
        module = importlib.import_module(type(scheduler).__module__)
        module.randn_tensor = self
        return self


def start(seed: int, level: float, scaled: bool, batch: int | None = None):
    x = np.random.default_rng(seed).standard_normal((batch or SHAPE[0], *SHAPE[1:]))
    return torch.tensor(x * (level / np.sqrt(1.0 + level**2) if scaled else level))


def keep(name: str, levels, first, states, source: Source | None = None) -> None:
    recorded[f"{name}/levels"] = np.asarray([float(level) for level in levels])
    recorded[f"{name}/start"] = np.asarray(first)
    recorded[f"{name}/states"] = np.stack([np.asarray(state, np.float64) for state in states])
    if source is not None:
        recorded[f"{name}/noise"] = np.stack(source.given)


def by_timestep(name: str, scheduler, steps: int, **options) -> None:
    """DDPM and DDIM, whose levels are those of ``alphas_cumprod``."""
    scheduler.set_timesteps(steps)
    levels = ((1.0 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5
    levels = [float(levels[t]) for t in scheduler.timesteps]
    x = first = start(1, levels[0], scaled=True)
    source, states = Source(2).into(scheduler), []
    for t, level in zip(scheduler.timesteps, levels, strict=True):
        x = scheduler.step(noise_of(x, level, True), t, x, **options).prev_sample
        states.append(x)
    keep(name, levels, first, states, source if source.given else None)


def by_sigma(name: str, scheduler, steps: int, scaled: bool, **options) -> None:
    """Schedulers with a table of noise levels; Heun's has two entries for each of its two evaluations."""
    scheduler.set_timesteps(steps, **options)
    levels = [float(level) for level in scheduler.sigmas[:-1]]
    x = first = start(3, levels[0], scaled)
    source, states = Source(4).into(scheduler), []
    for t, level in zip(scheduler.timesteps, levels, strict=True):
        if hasattr(scheduler, "is_scale_input_called"):
            scheduler.scale_model_input(x, t)
        x = scheduler.step(noise_of(x.double(), level, scaled), t, x).prev_sample
        states.append(x)
    keep(name, levels, first, states, source if source.given else None)


def flow_matching(name: str, scheduler, steps: int) -> None:
    """x_t = (1 - t) x_0 + t eps and the velocity eps - x_0; its ``sigmas`` are t."""
    scheduler.set_timesteps(steps)
    times = [float(sigma) for sigma in scheduler.sigmas[:-1]]
    x = first = start(5, 1.0, scaled=False)
    states = []
    for t, time in zip(scheduler.timesteps, times, strict=True):
        clean = denoise(x.numpy(), 1.0 - time, time)
        x = scheduler.step(torch.tensor((x.numpy() - clean) / time), t, x).prev_sample
        states.append(x)
    keep(name, times, first, states)


def karras_ve(name: str, steps: int) -> None:
    """Heun's method with churn; the pipeline's loop, on levels of our own."""
    scheduler = deprecated.KarrasVeScheduler(s_churn=8.0, s_min=0.1, s_max=20.0, s_noise=1.01)
    scheduler.set_timesteps(steps)
    levels = np.geomspace(40.0, 0.05, steps)
    x = first = start(6, levels[0], scaled=False)
    source, states = Source(7).into(scheduler), []
    for level, after in zip(levels, [*levels[1:], 0.0], strict=True):
        raised, sigma = scheduler.add_noise_to_input(x, level)
        out = scheduler.step(-noise_of(raised, sigma, False), sigma, after, raised)
        if after:
            value = -noise_of(out.prev_sample, after, False)
            out = scheduler.step_correct(value, sigma, after, raised, out.prev_sample, out.derivative)
        x = out.prev_sample
        states.append(x)
    keep(name, levels, first, states, source)


def predictor_corrector(name: str, steps: int) -> None:
    """Reverse diffusion and Langevin steps of one image (it averages norms over a batch), up to the lowest level."""
    scheduler = diffusers.ScoreSdeVeScheduler(
        num_train_timesteps=steps, snr=0.2, sigma_min=0.05, sigma_max=20.0, sampling_eps=0.0
    )
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    levels = [float(level) for level in reversed(scheduler.discrete_sigmas)]
    x = first = start(8, levels[0], scaled=False, batch=1)
    source, states = Source(9).into(scheduler), []
    for t, level, after in zip(scheduler.timesteps, levels, levels[1:], strict=False):
        x = scheduler.step_pred(-noise_of(x, level, False) / level, t, x).prev_sample
        for _ in range(2):
            x = scheduler.step_correct(-noise_of(x, after, False) / after, x).prev_sample
        states.append(x)
    keep(name, levels, first, states, source)


def consistency(name: str) -> None:
    """Denoise and add noise again; the levels end at zero here, as nearly as its settings allow."""
    scheduler = diffusers.CMStochasticIterativeScheduler(sigma_min=1e-6, sigma_max=20.0)
    scheduler.set_timesteps(4)
    levels = [float(level) for level in scheduler.sigmas[:-1]]
    x = first = start(10, levels[0], scaled=False)
    source, states = Source(11).into(scheduler), []
    for t, level in zip(scheduler.timesteps, levels, strict=True):
        scheduler.scale_model_input(x, t)
        skip, out = scheduler.get_scalings_for_boundary_condition(level)
        value = (torch.tensor(denoise(x.numpy(), 1.0, level)) - skip * x) / out
        x = scheduler.step(value, t, x).prev_sample
        states.append(x)
    keep(name, levels, first, states, source)


by_timestep("ddim", diffusers.DDIMScheduler(**VP, clip_sample=False), 12)
by_timestep("ddim_eta", diffusers.DDIMScheduler(**VP, clip_sample=False), 12, eta=0.6)
by_timestep("ddpm_posterior", diffusers.DDPMScheduler(**VP, clip_sample=False, variance_type="fixed_small"), 12)
by_timestep("ddpm_forward", diffusers.DDPMScheduler(**VP, clip_sample=False, variance_type="fixed_large"), 40)
by_sigma("euler_ancestral", diffusers.EulerAncestralDiscreteScheduler(**VP), 12, scaled=False)
by_sigma("euler", diffusers.EulerDiscreteScheduler(**VP, use_karras_sigmas=True), 12, scaled=False)
by_sigma("heun", diffusers.HeunDiscreteScheduler(**VP, use_karras_sigmas=True), 8, scaled=False)
by_sigma("dpmpp_2m", diffusers.DPMSolverMultistepScheduler(**VP), 12, scaled=True)
by_sigma("dpmpp_2m_karras", diffusers.DPMSolverMultistepScheduler(**VP, use_karras_sigmas=True), 20, scaled=True)
by_sigma("dpmpp_2s", diffusers.DPMSolverSinglestepScheduler(**VP, use_exponential_sigmas=True), 11, scaled=True)
by_sigma("unipc", diffusers.UniPCMultistepScheduler(**VP), 10, scaled=True)
by_sigma("unipc_karras", diffusers.UniPCMultistepScheduler(**VP, use_karras_sigmas=True), 20, scaled=True)
flow_matching("flow_euler", diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), 10)
flow_matching("flow_heun", diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0), 6)
karras_ve("edm_churn", 8)
predictor_corrector("predictor_corrector", 9)  # times in eighths, which it rounds down to its table
consistency("multistep_consistency")

output = Path(__file__).with_suffix(".npz")
np.savez_compressed(output, **recorded)
print(f"diffusers {diffusers.__version__}: {len(recorded)} arrays, {output.stat().st_size} bytes")
