"""AlexNet scaled down, on Fashion-MNIST.

python -m experiments.train --config=configs/classifier/fashion_mnist_alexnet.py:accelerator=cpu --workdir=runs/alexnet

Expected: not run in full yet.
Paper: Krizhevsky et al. 2012, ImageNet classification with deep convolutional neural networks.
"""

from configs import args, datasets
from configs.base import adam, base, finish


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("fashion_mnist", augment=("flip",))
    config.total = "12 epochs"
    config.model = {
        "family": "classifier",
        "network": {"name": "alexnet", "width": 32, "hidden": 256, "dropout": 0.5},
        "label_smoothing": 0.0,
        "ema_decay": 0.999,
    }
    config.optim = adam(1e-3, schedule="cosine")
    config.evaluators = {"eval": {"name": "classification", "every": "1 epochs", "bins": 15}}
    config.checkpoint.best = "eval/accuracy"
    return finish(config, options)
