"""MeanFlow on the embedded digits with a small transformer: one evaluation draws an image.

python -m experiments.train --config=configs/diffusion/digits_mean_flow.py:accelerator=cpu --workdir=runs/mean_flow

Paper: Geng et al. 2025, Mean flows for one-step generative modeling, eq. 6 to 11.
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
        "network": {"name": "dit", "patch": 2, "width": 128, "depth": 4, "heads": 4},
        "objective": {"name": "mean_flow", "ratio": 0.25, "power": 1.0},
        "path": {"name": "linear"},
        "prediction": {"name": "velocity"},
        "levels": {"name": "logit_normal", "mean": -0.4, "std": 1.0},
        "sampler": {"name": "flow_map", "num_steps": 1},
        "grid": {"name": "even"},
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
