"""ResNet on CIFAR-10.

python -m experiments.train --config=configs/classifier/cifar10_resnet.py:accelerator=gpu --workdir=runs/cifar10_resnet

Expected: not run in full yet; meant for an accelerator.
Paper: He et al. 2016, Deep residual learning for image recognition.
"""

from configs import args, datasets
from configs.base import adam, base, finish


def get_config(arg=None):
    options = args.parse(arg)
    config = base(options)
    config.data = datasets.tfds("cifar10", augment=("flip", "crop"))
    config.total = "100 epochs"
    config.model = {
        "family": "classifier",
        "network": {"name": "resnet", "width": 64, "blocks": (2, 2, 2), "stem_stride": 1},
        "label_smoothing": 0.0,
        "ema_decay": 0.999,
    }
    config.optim = adam(3e-3, schedule="cosine", warmup_steps=500, weight_decay=0.05)
    config.evaluators = {"eval": {"name": "classification", "every": "5 epochs", "bins": 15}}
    config.checkpoint.best = "eval/accuracy"
    return finish(config, options)
