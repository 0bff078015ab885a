"""DDPM on the embedded digits, given the class.

python -m experiments.train --config=configs/diffusion/digits_ddpm.py:accelerator=cpu --workdir=runs/digits_ddpm

Paper: Ho et al. 2020, Denoising diffusion probabilistic models, eq. 7 (sampler) and 14 (loss).
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.digits()
    config.total = "200 epochs"
    config.log_every = "100 steps"
    config.checkpoint.every = "50 epochs"
    config.model = {
        "family": "diffusion",
        "network": {"name": "unet", "width": 32, "multipliers": (1, 2), "blocks": 1, "adaptive_scale": True},
        "objective": {"name": "denoising"},
        "path": {"name": "vp_linear"},
        "prediction": {"name": "eps"},
        "levels": {"name": "discrete", "num": 1000},
        "weighting": {"name": "eps"},
        "sampler": {"name": "ancestral", "num_steps": 200},
        "grid": {"name": "uniform"},
        "conditional": True,
        "label_dropout": 0.1,
        "guidance_scale": 1.0,
        "ema_lengths": (0.1, 0.05),
    }
    config.optim = adam(1e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0)
    config.evaluators = {
        "eval": {"name": "mean", "every": "50 epochs", "limit": 0},
        "likelihood": {"name": "bits_per_dim", "every": "end", "num_steps": 20, "limit": 0},
        **pictures("samples", "interpolations", every="50 epochs"),
    }
    return finish(config, options)
