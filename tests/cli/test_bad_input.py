"""Every mistake ends in one line that names it, with exit status 2, before anything is compiled or written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.commands import GAN, VAE, one_line, run, run_many, snapshot, train_arguments

# name: (config, overrides, what the line must say)
SETTINGS = {
    "misspelt key": (VAE, ["optim.learning_rat=1"], ["--config.optim.learning_rat", "'learning_rate'"]),
    "misspelt network key": (VAE, ["model.network.widht=1"], ["--config.model.network.widht", "'width'"]),
    "misspelt section": (VAE, ["optmi.learning_rate=1"], ["--config.optmi.learning_rate", "'optim'"]),
    "word for a number": (VAE, ["batch_size=many"], ["batch_size", "'many'", "int"]),
    "fraction for a whole number": (VAE, ["batch_size=1.5"], ["batch_size", "'1.5'", "int"]),
    "word for yes or no": (VAE, ["model.conditional=maybe"], ["model.conditional", "maybe", "boolean"]),
    "number for a section": (VAE, ["model=3"], ["--config.model=3"]),
    "no value": (VAE, ["batch_size="], ["--config.batch_size="]),
    "family": (VAE, ["model.family=vea"], ["model.family='vea'", "classifier, diffusion, gan, vae"]),
    "network": (VAE, ["model.network.name=unnet"], ["model.network.name='unnet'", "conv_vae"]),
    "data source": (
        VAE,
        ["data.source=digit"],
        ["data.source='digit'", "arrays, digits, folder, shapes, stacked, tfds"],
    ),
    "split": (VAE, ["data.train=validation"], ["'validation'", "train or test"]),
    "accelerator": (VAE, ["accelerator.platform=cuda"], ["accelerator=cuda", "auto, cpu, gpu, tpu"]),
    "evaluator": (VAE, ["evaluators.eval.name=meen"], ["evaluators.eval.name='meen'", "importance_bound"]),
    "optimizer": (VAE, ["optim.name=adm"], ["optim.name='adm'", "adam, sgd"]),
    "schedule": (VAE, ["optim.schedule=cosin"], ["optim.schedule='cosin'", "constant, cosine, linear"]),
    "likelihood": (VAE, ["model.likelihood=bernouli"], ["'bernouli'", "bernoulli, discretized_logistic, gaussian"]),
    "loss": (GAN, ["model.loss=minmax"], ["model.loss='minmax'", "minimax, non_saturating"]),
    "augmentation": (VAE, ["data.augment=('flop',)"], ["'flop'", "crop, flip"]),
    "duration": (VAE, ["total=20 fortnights"], ["total='20 fortnights'", "steps, epochs, examples"]),
    "no duration": (VAE, ["total=0 epochs"], ["total='0 epochs'", "more than zero"]),
    "endless duration": (VAE, ["total=1e999 epochs"], ["total='1e999 epochs'"]),
    "cadence": (VAE, ["log_every=often"], ["log_every='often'", "steps, epochs, examples or %"]),
    "best mode": (VAE, ["checkpoint.mode=maxi"], ["checkpoint.mode='maxi'", "max, min"]),
    "empty batch": (VAE, ["batch_size=0"], ["batch_size=0", "positive"]),
    "learning rate below zero": (VAE, ["optim.learning_rate=-0.1"], ["optim.learning_rate=-0.1", "positive"]),
    "learning rate that is no number": (VAE, ["optim.learning_rate=nan"], ["optim.learning_rate=nan", "positive"]),
    "weight decay": (VAE, ["optim.weight_decay=-1.0"], ["optim.weight_decay=-1.0"]),
    "warm-up": (VAE, ["optim.warmup_steps=99999"], ["optim.warmup_steps=99999", "less than"]),
    "seed below zero": (VAE, ["seed=-1"], ["seed=-1"]),
    "seed above 32 bits": (VAE, ["seed=99999999999"], ["seed=99999999999", "4294967295"]),
    "accumulation": (VAE, ["accelerator.accumulation=7"], ["batch_size=8", "accelerator.accumulation=7"]),
    "no discriminator updates": (
        GAN,
        ["model.discriminator_updates=0"],
        ["model.discriminator_updates=0", "at least 1"],
    ),
    "devices": (VAE, ["accelerator.devices=99"], ["accelerator.devices=99", "this machine has"]),
    "dtype": (VAE, ["accelerator.compute_dtype=float8"], ["'float8'", "bfloat16, float32, float64"]),
    "draws": (VAE, ["evaluators.bound.num_samples=0"], ["evaluators.bound", "num_samples", "at least 1"]),
    "examples to look at": (VAE, ["evaluators.eval.limit=-2"], ["evaluators.eval", "limit", "at least 0"]),
    "pictures": (VAE, ["evaluators.samples.num=0"], ["evaluators.samples", "num", "at least 1"]),
}


def run_settings(folder: Path) -> dict:
    names = list(SETTINGS)
    commands = []
    for name in names:
        config, overrides, _ = SETTINGS[name]
        commands.append(("train", train_arguments(config, folder / name, *(f"--config.{o}" for o in overrides))))
    return dict(zip(names, run_many(commands), strict=True))


def check(answers, wanted) -> None:
    for name, answer in answers.items():
        line = one_line(answer)
        assert answer.compiled == 0, name
        for part in wanted[name]:
            assert part in line, (name, line)


def test_settings(tmp_path):
    check(run_settings(tmp_path), {name: parts for name, (_, _, parts) in SETTINGS.items()})
    assert list(tmp_path.iterdir()) == []


def test_an_evaluator_that_can_not_judge_the_run(tmp_path):
    arguments = train_arguments(GAN, tmp_path / "new", "--config.evaluators.eval.name=image_pairs")
    (answer,) = run_many([("train", arguments)])
    line = one_line(answer)
    assert "evaluators.eval: evaluator 'image_pairs' needs the function 'reconstruct'" in line
    assert answer.compiled <= 1 and list(tmp_path.iterdir()) == []  # that one asks the compiler for its options


# Data.

DATA_CONFIG = """\
from configs.{module} import get_config as digits

def get_config(arg):
    config = digits("accelerator=cpu,smoke")
    config.data.source, path = arg.split(",")
    config.data.options = {{"path": path, "test_fraction": 0.1}}
    config.data.train, config.data.test = "train", "test"
    return config
"""
MODULES = {"vae": "vae.digits_conv", "gan": "gan.digits_dcgan", "classifier": "classifier.digits_cnn"}


def noise(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(noise(count, 8, 8)):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


def test_data(tmp_path):
    data, runs = tmp_path / "data", tmp_path / "runs"
    data.mkdir()
    for family, module in MODULES.items():
        (tmp_path / f"{family}.py").write_text(DATA_CONFIG.format(module=module))
    labels = np.arange(40) % 10
    np.savez(data / "short.npz", images=noise(40, 8, 8), labels=labels[:37])
    np.savez(data / "bare.npz", images=noise(40, 8, 8))
    np.savez(data / "odd.npz", images=noise(40, 27, 27), labels=labels)
    corrupt, cut = pictures(data / "corrupt" / "a", 12) / "05.png", pictures(data / "cut" / "a", 12) / "05.png"
    corrupt.write_bytes(b"not an image")
    cut.write_bytes(cut.read_bytes()[:60])
    pictures(data / "plain", 12)
    (data / "empty").mkdir()
    cases = {
        "labels of another length": ("vae", "arrays", "short.npz", ["short.npz", "37 labels for 40 images"]),
        "conditional vae without labels": ("vae", "arrays", "bare.npz", ["model.conditional", "labels"]),
        "conditional gan without labels": ("gan", "arrays", "bare.npz", ["model.conditional", "labels"]),
        "classifier without labels": ("classifier", "arrays", "bare.npz", ["classifier", "at least 2 classes"]),
        "classifier of a plain folder": ("classifier", "folder", "plain", ["classifier", "at least 2 classes"]),
        "size a gan can't take": ("gan", "arrays", "odd.npz", ["model.generator", "27x27", "such as 8, 24, 28"]),
        "size a vae can't take": ("vae", "arrays", "odd.npz", ["model.network", "27x27"]),
        "corrupt image": ("vae", "folder", "corrupt", [str(corrupt)]),
        "image cut short": ("vae", "folder", "cut", [str(cut), "truncated"]),
        "empty folder": ("vae", "folder", "empty", [str(data / "empty"), ".png"]),
        "no such folder": ("vae", "folder", "none", [str(data / "none")]),
        "no such file": ("vae", "arrays", "none.npz", [str(data / "none.npz")]),
    }
    before = snapshot(data)
    commands = [
        ("train", train_arguments(tmp_path / f"{family}.py", runs / name, arg=f"{source},{data / file}"))
        for name, (family, source, file, _) in cases.items()
    ]
    mnist = VAE.replace("digits_conv", "mnist_conv")
    place = f"--config.data.options.data_dir={data / 'empty'}"
    commands.append(("train", train_arguments(mnist, runs / "set", place, "--config.data.options.name=fashon_mnist")))
    commands.append(("train", train_arguments(mnist, runs / "unprepared", place)))
    answers = dict(zip([*cases, "set", "unprepared"], run_many(commands), strict=True))
    wanted = {name: parts for name, (_, _, _, parts) in cases.items()}
    wanted["set"] = ["fashon_mnist", "did you mean fashion_mnist"]
    wanted["unprepared"] = [
        "mnist is not prepared",
        str(data / "empty"),
        "python -m experiments.prepare mnist --from=DIR",
    ]
    check(answers, wanted)
    assert snapshot(data) == before and not runs.exists()


# Commands and folders.


def test_commands(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef get_config(arg=None:\n    pass\n")
    new = tmp_path / "new"
    cases = {
        "nothing": ([], ["--config and --workdir", "--help"]),
        "no config": ([f"--workdir={new}"], ["--config"]),
        "no workdir": ([f"--config={VAE}:smoke"], ["--workdir"]),
        "unknown flag": (train_arguments(VAE, new, "--wrokdir=3"), ["wrokdir", "Did you mean: workdir"]),
        "stray": (train_arguments(VAE, new, "stray"), ["'stray'", "--help"]),
        "no such config": ([f"--config={tmp_path}/none.py:smoke", f"--workdir={new}"], ["none.py", "no such file"]),
        "config argument": (
            train_arguments(VAE, new, arg="smok"),
            ["'smok'", "accelerator=auto|cpu|gpu|tpu and smoke"],
        ),
        "accelerator argument": (train_arguments(VAE, new, arg="accelerator=cuda"), ["'accelerator=cuda'", "gpu"]),
        "gpu": (train_arguments(VAE, new, arg="accelerator=gpu,smoke"), ["no GPU", "accelerator=cpu"]),
        "tpu": (train_arguments(VAE, new, arg="accelerator=tpu,smoke"), ["no TPU", "accelerator=cpu"]),
        "no python": ([f"--config={broken}", f"--workdir={new}"], [str(broken), "line 2"]),
    }
    answers = run_many([("train", arguments) for arguments, _ in cases.values()])
    check(dict(zip(cases, answers, strict=True)), {name: parts for name, (_, parts) in cases.items()})
    assert not new.exists()
    # And once as a user calls it, from somewhere else.
    answer = run("train", f"--config={VAE}:smoke", f"--workdir={new}", "--config.model.family=gun", cwd=tmp_path)
    assert "model.family='gun'" in one_line(answer)


def test_work_folders(tmp_path, vae_run, vae_arguments):
    folder, _ = vae_run
    file, foreign = tmp_path / "file", tmp_path / "foreign"
    file.write_text("a file")
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    cases = {
        "another config": (
            [*vae_arguments, "--config.optim.b1=0.8"],
            ["optim.b1 was 0.9, is 0.8", "another --workdir"],
        ),
        "a file": (train_arguments(VAE, file), [str(file), "must be a folder"]),
        "below a file": (train_arguments(VAE, file / "run"), [str(file / "run")]),
        "a foreign folder": (train_arguments(VAE, foreign), [str(foreign), "not empty"]),
    }
    before = snapshot(tmp_path), snapshot(folder)
    answers = run_many([("train", arguments) for arguments, _ in cases.values()])
    check(dict(zip(cases, answers, strict=True)), {name: parts for name, (_, parts) in cases.items()})
    assert (snapshot(tmp_path), snapshot(folder)) == before


def test_evaluate_and_sample(tmp_path, vae_run, other_runs):
    vae, (classifier, gan) = vae_run[0], other_runs
    hollow, corrupt, untrained = (tmp_path / name for name in ("hollow", "corrupt", "untrained"))
    for folder in (hollow, corrupt, untrained):
        folder.mkdir()
    (corrupt / "config.json").write_text('{"seed": 0,')
    (untrained / "config.json").write_text((vae / "config.json").read_text())
    (recorded := tmp_path / "recorded").mkdir()
    for name in ("config.json", "checkpoints"):
        (recorded / name).symlink_to(vae / name)
    (recorded / "evaluation.json").write_text("[]")
    (edited := tmp_path / "edited").mkdir()
    (edited / "config.json").write_text(json.dumps({**json.loads((vae / "config.json").read_text()), "sede": 1}))
    both = {
        "missing": (tmp_path / "none", [], ["none: no such folder"]),
        "no config": (hollow, [], ["no config.json"]),
        "corrupt config": (corrupt, [], ["config.json is not valid JSON"]),
        "edited config": (edited, [], ["sede is no setting", "seed"]),
        "no checkpoint": (untrained, [], ["no checkpoint in"]),
        "nonsense": (vae, ["--checkpoint=nonsense"], ["--checkpoint=nonsense", "latest, best or a step"]),
        "no ASCII": (vae, ["--checkpoint=\u00b2"], ["--checkpoint=\u00b2", "latest, best or a step"]),
        "step": (vae, ["--checkpoint=5"], ["no checkpoint 5", "there are:", "12"]),
        "accelerator": (vae, ["--accelerator=cuda"], ["accelerator=cuda", "auto, cpu, gpu, tpu"]),
    }
    cases = {f"{module} {name}": (module, *case) for module in ("evaluate", "sample") for name, case in both.items()}
    cases |= {
        "none to sample": ("sample", vae, ["--num=0"], ["--num", "0"]),
        "many classes": ("sample", vae, ["--labels=3,10"], ["--labels=10", "0 to 9"]),
        "unknown class": ("sample", vae, ["--labels=cat"], ["--labels=cat", "0, 1, 2"]),
        "labels without classes": ("sample", gan, ["--labels=1"], ["--labels", "without labels"]),
        "samples of a classifier": ("sample", classifier, [], ["sample", "gan or vae"]),
        "no record": ("evaluate", recorded, [], ["evaluation.json is no record"]),
        "no class looked at": ("evaluate", vae, ["--num=0"], ["num", "positive"]),
        "judge": ("evaluate", vae, [f"--judge={gan}"], ["--judge", "is a gan", "classifier"]),
        "missing judge": ("evaluate", vae, [f"--judge={tmp_path}/none"], ["none: no such folder"]),
    }
    folders = [vae, classifier, gan, tmp_path]
    before = [snapshot(folder) for folder in folders]
    commands = [(module, [f"--workdir={path}", *arguments]) for module, path, arguments, _ in cases.values()]
    answers = run_many([*commands, ("evaluate", []), ("sample", [])], cwd=tmp_path)
    for name, answer in zip([*cases, "evaluate nothing", "sample nothing"], answers, strict=True):
        line = one_line(answer)
        for part in cases[name][3] if name in cases else ["--workdir is required"]:
            assert part in line, (name, line)
    assert [snapshot(folder) for folder in folders] == before


def test_prepare(tmp_path):
    place = f"--data_dir={tmp_path / 'tfds'}"
    cases = {("mnist",): "mnist", ("mnst",): "mnst"}
    answers = run_many([("prepare", [*arguments, place]) for arguments in cases])
    for answer, part in zip(answers, cases.values(), strict=True):
        assert answer.status == 2 and answer.out == ""
        assert len(answer.err.splitlines()) == 1 and answer.err.startswith("error: ") and part in answer.err
