"""Consistency training on the embedded digits: one or two evaluations draw an image.

python -m experiments.train --config=configs/diffusion/digits_consistency.py:accelerator=cpu --workdir=runs/consistency

Paper: Song et al. 2023, Consistency models; Song & Dhariwal 2024, Improved techniques for training consistency models.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.digits()
    config.total = "600 epochs"
    config.log_every = "100 steps"
    config.checkpoint.every = "50 epochs"
    config.model = {
        "family": "diffusion",
        "network": {"name": "unet", "width": 32, "multipliers": (1, 2), "blocks": 1, "adaptive_scale": True},
        "objective": {"name": "consistency", "start_points": 10, "end_points": 160},
        "path": {"name": "edm"},
        "prediction": {"name": "edm", "sigma_data": 0.75},
        "sampler": {"name": "multistep_consistency", "num_steps": 2},
        "grid": {"name": "karras", "rho": 7.0},
        "conditional": True,
        "label_dropout": 0.0,
        "guidance_scale": 1.0,
        "ema_lengths": (0.1, 0.05),
    }
    config.optim = adam(1e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0)
    config.evaluators = {
        "eval": {"name": "mean", "every": "50 epochs", "limit": 0},
        **pictures("samples", "interpolations", every="50 epochs"),
    }
    return finish(config, options)
