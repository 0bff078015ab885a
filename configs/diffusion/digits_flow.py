"""Flow matching on the embedded digits, given the class: a minute, to try things out.

python -m experiments.train --config=configs/diffusion/digits_flow.py:accelerator=cpu --workdir=runs/digits_flow

Paper: Lipman et al. 2023, Flow matching for generative modeling, eq. 23; levels by Esser et al. 2024, eq. 19.
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
        "path": {"name": "linear"},
        "prediction": {"name": "velocity"},
        "levels": {"name": "logit_normal", "mean": 0.0, "std": 1.0},
        "weighting": {"name": "velocity"},
        "sampler": {"name": "heun", "num_steps": 10},
        "grid": {"name": "even"},
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
