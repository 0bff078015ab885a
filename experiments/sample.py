"""Draws images from a trained run.

  python -m experiments.sample --workdir=runs/gan --num=64 --labels=3,8

Writes a grid (PNG) and the images (uint8 [num, H, W, C] in an .npz) to <workdir>/samples. Image i depends on the seed,
i and its label alone. --labels are class numbers or names, repeated to --num; without them a conditional model shows
every class in turn. --set gives a setting that acts on sampling alone another value, which then is in the files' names:
--set=model.sampler.num_steps=4. --ema=0.08 draws with the average of the weights that has this relative length, where
checkpoints were kept (checkpoint.keep). --guide=runs/small moves the samples of a diffusion model away from those of a
weaker one.
"""

from __future__ import annotations

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Work folder of the run.")
NUM = flags.DEFINE_integer("num", 64, "How many images.")
LABELS = flags.DEFINE_list("labels", [], "Classes to draw, by number or name, for a conditional model.")
SEED = flags.DEFINE_integer("seed", 0, "Of the latents.", lower_bound=0)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which checkpoint: latest, best or a step.")
EMA = flags.DEFINE_float("ema", None, "Relative length of the average of the weights, rebuilt from kept checkpoints.")
GUIDE = flags.DEFINE_string("guide", None, "Work folder of a weaker diffusion model to move samples away from.")
GUIDE_CHECKPOINT = flags.DEFINE_string("guide_checkpoint", "latest", "Which checkpoint of it: latest, best or a step.")
GUIDE_SCALE = flags.DEFINE_float("guide_scale", None, "How far: 1 not at all, 2 unless given.")
ACCELERATOR = flags.DEFINE_string("accelerator", "auto", "Where to compute: cpu, gpu, tpu or auto.")
SET = flags.DEFINE_multi_string("set", [], "A setting of sampling and its value, as model.sampler.num_steps=4.")
OUT = flags.DEFINE_string("out", None, "Folder for the result, <workdir>/samples when not given.")


def class_number(text: str, names: tuple[str, ...], classes: int) -> int:
    """The class that a number or a name means; raises UserError for another."""
    from genjax.types import UserError

    if text.strip().isdigit() and int(text) < classes:
        return int(text)
    if text.strip() in names:
        return names.index(text.strip())
    known = f"0 to {classes - 1}" + (f" or {', '.join(names[:20])}" if names else "")
    raise UserError(f"--labels={text}: no such class; accepted: {known}")


def main() -> int:
    import numpy as np

    from experiments.restore import guide_of, restore
    from genjax.evaluators.base import to_uint8
    from genjax.evaluators.figures import grid
    from genjax.io.images import save_npz, save_png
    from genjax.train.evaluation import context_of
    from genjax.types import UserError

    if not WORKDIR.value:
        raise UserError("--workdir is required; see --help")
    if NUM.value < 1:
        raise UserError(f"--num={NUM.value}: accepted: a whole number from 1")
    run = restore(WORKDIR.value, CHECKPOINT.value, ACCELERATOR.value, cli.settings_of(SET.value), EMA.value)
    weaker = guide_of(GUIDE.value, GUIDE_CHECKPOINT.value, GUIDE_SCALE.value, ACCELERATOR.value)
    run = run.guided_by(*weaker) if weaker else run
    context = context_of(run.plan, run.functions, run.state, run.mesh)
    labels = context.default_labels(NUM.value)
    if LABELS.value:
        if not run.plan.family.conditional:
            raise UserError(
                f"--labels: {WORKDIR.value} was trained without labels (model.conditional); leave the flag out"
            )
        spec = context.spec
        chosen = [class_number(text, spec.class_names, spec.classes) for text in LABELS.value]
        labels = np.resize(np.asarray(chosen, np.int32), NUM.value)
    images = to_uint8(context.samples(SEED.value, labels))
    folder = run.workdir.path / "samples" if OUT.value is None else OUT.value
    changed = "".join(f"_{given.removeprefix('config.').removeprefix('model.')}" for given in SET.value)
    average = "" if EMA.value is None else f"_ema={EMA.value:g}"
    guided = "" if run.guide is None else f"_guide={run.guide.run},{run.guide.step},{run.guide.scale:g}"
    stem = f"{folder}/step{int(run.state.step)}_seed{SEED.value}{average}{changed}{guided}"
    columns = context.spec.classes if run.plan.family.conditional and not LABELS.value else None
    save_png(f"{stem}.png", grid(images, columns=columns))
    arrays = {"images": images, **({"labels": labels} if run.plan.family.conditional else {})}
    save_npz(f"{stem}.npz", arrays)
    print(f"{NUM.value} images: {stem}.png, {stem}.npz")
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__)
