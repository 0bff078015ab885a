"""EDM on Fashion-MNIST, given the class, with a U-Net for two CPU cores.

python -m experiments.train --config=configs/diffusion/fashion_mnist_edm.py:accelerator=cpu --workdir=runs/edm

Expected: loss 0.190 on 2,000 test images, Frechet distance 0.036 of 1,000 samples in the features of fashion_mnist_cnn
(0.006 for training images), 84% of the samples of the class asked for (seed 0); 25 min of one CPU core.
Paper: Karras et al. 2022, Elucidating the design space of diffusion-based generative models, table 1.
"""

from configs import args, datasets
from configs.base import adam, base, finish, pictures


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("fashion_mnist", augment=("flip",))
    config.total = "8 epochs"
    config.batch_size = 64
    config.checkpoint.keep = "10%"
    config.model = {
        "family": "diffusion",
        "network": {
            "name": "unet",
            "width": 32,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention": (7,),
            "patch": 2,
            "adaptive_scale": True,
        },
        "objective": {"name": "denoising"},
        "path": {"name": "edm"},
        "prediction": {"name": "edm", "sigma_data": 0.7},
        "levels": {"name": "edm_log_normal", "mean": -0.8, "std": 1.2},
        "weighting": {"name": "edm", "sigma_data": 0.7},
        "sampler": {"name": "heun", "num_steps": 18},
        "grid": {"name": "karras", "rho": 7.0},
        "conditional": True,
        "label_dropout": 0.1,
        "guidance_scale": 1.0,
        "ema_lengths": (0.1, 0.05),
    }
    config.optim = adam(2e-3, schedule="cosine", warmup_steps=200, clip_norm=1.0)
    config.evaluators = {
        "eval": {"name": "mean", "every": "2 epochs", "limit": 2000},
        **pictures("samples", "interpolations", every="2 epochs"),
    }
    return finish(config, options)
