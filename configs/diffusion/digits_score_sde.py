"""A score model of the variance-exploding SDE on the embedded digits, with predictor and corrector.

python -m experiments.train --config=configs/diffusion/digits_score_sde.py:accelerator=cpu --workdir=runs/score_sde

Paper: Song et al. 2021, Score-based generative modeling through stochastic differential equations, section 4.
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
        "network": {"name": "unet", "width": 32, "multipliers": (1, 2), "blocks": 1, "embedding": "fourier"},
        "objective": {"name": "denoising"},
        "path": {"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0},
        "prediction": {"name": "score", "scale_input": True},
        "levels": {"name": "uniform"},
        "weighting": {"name": "eps"},
        "sampler": {"name": "predictor_corrector", "num_steps": 200},
        "grid": {"name": "uniform"},
        "conditional": False,
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
