"""Every key that all families share, once, with its meaning."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.accelerators import accelerator
from configs.args import Args


def base(args: Args) -> ConfigDict:
    """The common part; a config adds ``data``, ``model``, ``optim`` and ``evaluators``."""
    return ConfigDict(
        {
            "seed": 0,  # of everything: parameters, order of data, noise
            "batch_size": 128,  # examples in one update, whatever the accelerator
            "total": "10 epochs",  # durations: N steps, epochs or examples
            "log_every": "50 steps",  # also N%, of the total
            "eval_batch_size": 250,  # numbers do not depend on it
            "checkpoint": {
                "every": "1 epochs",
                "keep": "",  # checkpoints at multiples of this duration are kept for good, such as 10%; empty for none
                "best": "",  # metric that chooses the best checkpoint, such as eval/accuracy; empty for none
                "mode": "max",
            },
            "divergence": {  # a metric that is not finite, or a gradient past its limit
                "policy": "stop",  # or "rollback": back to the last checkpoint and on another way
                "max_grad_norm": 0.0,  # before clipping, of each network; 0 for no limit
                "rollbacks": 3,  # of one run at most
                "rate_factor": 0.5,  # on the learning rates, at each rollback
                "reseed": True,  # another order of data and other noise after a rollback
            },
            "accelerator": accelerator(args.accelerator),
        }
    )


_OPTIMIZER = {"weight_decay": 0.0, "clip_norm": 0.0, "schedule": "constant", "warmup_steps": 0}


def adam(learning_rate: float, **options) -> ConfigDict:
    """Adam with every setting spelt out, so that each can be overridden from the command line."""
    return ConfigDict({"name": "adam", "learning_rate": learning_rate, "b1": 0.9, "b2": 0.999, **_OPTIMIZER, **options})


def sgd(learning_rate: float, **options) -> ConfigDict:
    """Momentum with every setting spelt out; ``weight_decay`` is decoupled from the gradient."""
    settings = {"name": "sgd", "learning_rate": learning_rate, "momentum": 0.9, "nesterov": True}
    return ConfigDict({**settings, **_OPTIMIZER, **options})


def pictures(*names: str, every: str = "1 epochs") -> dict:
    """Evaluators that draw: "samples", "reconstructions", "interpolations", "traversals"."""
    sizes = {"samples": {"num": 60}, "reconstructions": {"num": 30}, "interpolations": {"rows": 6, "num": 10}}
    sizes["traversals"] = {"rows": 10, "num": 9, "examples": 250}
    return {name: {"name": name, "every": every, **sizes[name]} for name in names}


def distance(protocol: str, every: str) -> dict:
    """The evaluator of samples as a set under a named protocol; the short ones are for use during training."""
    return {"distance": {"name": "distribution", "protocol": protocol, "every": every}}


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrinks a config to seconds: four steps on 8 images each, every evaluator still running once.

    But for those of a protocol, which would be no protocol with less than it says.
    """
    config.update({"batch_size": 8, "total": "4 steps", "log_every": "2 steps", "eval_batch_size": 16})
    config.checkpoint.every = "2 steps"
    config.data.train, config.data.test = f"{config.data.train}[:64]", f"{config.data.test}[:40]"
    model: Any = config.model
    if "sampler" in model:
        model.sampler.num_steps = min(model.sampler.num_steps, 4)
    optim: Any = config.optim
    for section in [optim] if "name" in optim else optim.values():
        section.warmup_steps = 0
    config.evaluators = {name: part for name, part in config.evaluators.items() if "protocol" not in part}
    for section in config.evaluators.values():
        section.every = "end" if section.every == "end" else "2 steps"
        for key, small in {"num_samples": 3, "num_steps": 2, "rows": 2, "num": 10, "examples": 16, "limit": 16}.items():
            if key in section:
                section[key] = min(section[key] or small, small)  # 0 is no limit
    return config


def finish(config: ConfigDict, args: Args) -> ConfigDict:
    """Applies the arguments that act on the whole config."""
    return smoke(config) if args.smoke else config
