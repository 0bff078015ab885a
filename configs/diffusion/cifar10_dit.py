"""Flow matching on CIFAR-10, given the class, with DiT-B/2, for a GPU.

python -m experiments.train --config=configs/diffusion/cifar10_dit.py:accelerator=gpu --workdir=runs/cifar10_dit

Expected: not run in full here.
Paper: Peebles & Xie 2023, Scalable diffusion models with transformers; Ma et al. 2024, SiT.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("cifar10", augment=("flip",))
    config.total = "1000 epochs"
    config.batch_size = 256
    config.checkpoint.every = "10 epochs"
    config.model = {
        "family": "diffusion",
        "network": {"name": "dit", "patch": 2, "width": 768, "depth": 12, "heads": 12},
        "objective": {"name": "denoising"},
        "path": {"name": "linear"},
        "prediction": {"name": "velocity"},
        "levels": {"name": "logit_normal", "mean": 0.0, "std": 1.0},
        "weighting": {"name": "velocity"},
        "sampler": {"name": "heun", "num_steps": 32},
        "grid": {"name": "even"},
        "conditional": True,
        "label_dropout": 0.1,
        "guidance_scale": 1.5,
        "ema_lengths": (0.1, 0.05),
    }
    config.optim = adam(1e-4, b2=0.95)
    config.evaluators = {
        "eval": {"name": "mean", "every": "50 epochs", "limit": 2000},
        **pictures("samples", "interpolations", every="50 epochs"),
    }
    return finish(config, options)
