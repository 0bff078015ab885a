"""EDM on CIFAR-10, given the class, with the DDPM++ U-Net of 56 million parameters, for a GPU.

python -m experiments.train --config=configs/diffusion/cifar10_edm.py:accelerator=gpu --workdir=runs/cifar10_edm

Expected: FID 1.8 with 35 evaluations in the paper; not run in full here.
Paper: Karras et al. 2022, Elucidating the design space of diffusion-based generative models, tables 1 and 7.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("cifar10", augment=("flip",))
    config.total = "2000 epochs"
    config.batch_size = 512
    config.checkpoint.every = "10 epochs"
    config.checkpoint.keep = "2%"
    config.model = {
        "family": "diffusion",
        "network": {
            "name": "unet",
            "width": 128,
            "multipliers": (2, 2, 2),
            "blocks": 4,
            "attention": (16,),
            "dropout": 0.13,
        },
        "objective": {"name": "denoising"},
        "path": {"name": "edm"},
        "prediction": {"name": "edm", "sigma_data": 0.5},
        "levels": {"name": "edm_log_normal", "mean": -1.2, "std": 1.2},
        "weighting": {"name": "edm", "sigma_data": 0.5},
        "sampler": {"name": "heun", "num_steps": 18},
        "grid": {"name": "karras", "rho": 7.0},
        "conditional": True,
        "label_dropout": 0.0,
        "guidance_scale": 1.0,
        "augmentation": 0.12,
        "ema_lengths": (0.1, 0.05),
    }
    config.optim = adam(1e-3, warmup_steps=19531)
    config.evaluators = {
        "eval": {"name": "mean", "every": "50 epochs", "limit": 2000},
        **pictures("samples", "interpolations", every="50 epochs"),
    }
    return finish(config, options)
