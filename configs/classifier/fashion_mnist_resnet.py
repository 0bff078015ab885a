"""ResNet-14 at half resolution on Fashion-MNIST.

python -m experiments.train --config=configs/classifier/fashion_mnist_resnet.py:accelerator=cpu --workdir=runs/resnet

Expected: test accuracy 93.94% (seed 0), nll 0.168, in 46 min on one CPU core shared with other work.
Paper: He et al. 2016, Deep residual learning for image recognition.
"""

from configs import args, datasets
from configs.base import base, finish, sgd


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("fashion_mnist", augment=("flip", "crop"))
    config.total = "24 epochs"
    config.model = {
        "family": "classifier",
        "network": {"name": "resnet", "width": 32, "blocks": (2, 2, 2), "stem_stride": 2},
        "label_smoothing": 0.0,
        "ema_decay": 0.999,
    }
    config.optim = sgd(0.1, schedule="cosine", warmup_steps=300, weight_decay=5e-3)
    config.evaluators = {"eval": {"name": "classification", "every": "1 epochs", "bins": 15}}
    config.checkpoint.best = "eval/accuracy"
    return finish(config, options)
