"""A pixel transformer that predicts the image itself, on the embedded digits.

python -m experiments.train --config=configs/diffusion/digits_jit.py:accelerator=cpu --workdir=runs/digits_jit

Paper: Li & He 2025, Back to basics: let denoising generative models denoise (x-prediction with the velocity's loss).
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
        "network": {
            "name": "jit",
            "patch": 4,
            "width": 128,
            "depth": 4,
            "heads": 4,
            "bottleneck": 32,
            "context_start": 2,
        },
        "objective": {"name": "denoising"},
        "path": {"name": "linear"},
        "prediction": {"name": "x0"},
        "levels": {"name": "logit_normal", "mean": 0.8, "std": 0.8},
        "weighting": {"name": "velocity", "min_sigma": 0.05},
        "sampler": {"name": "heun", "num_steps": 25},
        "grid": {"name": "even"},
        "conditional": True,
        "label_dropout": 0.1,
        "guidance_scale": 1.0,
        "ema_lengths": (0.1, 0.05),
    }
    config.optim = adam(1e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0)
    config.evaluators = {
        "eval": {"name": "mean", "every": "50 epochs", "limit": 0},
        **pictures("samples", "interpolations", every="50 epochs"),
    }
    return finish(config, options)
