"""Published figures: what a config may declare, when a mean reaches them, and that a miss is seen."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

from configs.references import Reference
from experiments.references import Published, checked, config_file, declared
from genjax import build
from genjax.types import UserError

ROOT = Path(__file__).resolve().parent.parent
DECLARING = sorted(
    str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*/*.py") if "def references(" in path.read_text()
)
EVALUATION = {"evaluators": {"eval": {"scalars": {"accuracy": 0.5, "nll": 1.0}}}}


def published(metric: str, value: float, tolerance: float = 0.0) -> Published:
    return Published(metric, value, "somebody 2020, table 1", tolerance)


@pytest.mark.parametrize(
    "metric, worse, better",
    [
        ("eval/accuracy", 0.89, 0.95),
        ("bound/importance_bound_5000", -0.1 + 0.9, 0.95),
        ("eval/nll", 0.95, 0.2),
        ("distribution/frechet_distance", 0.95, 0.2),
    ],
)
def test_a_mean_reaches_what_it_is_no_worse_than(metric, worse, better):
    reference = published(metric, 0.9)
    assert reference.reached(0.9) and reference.reached(better)
    assert not reference.reached(worse) and not reference.reached(float("nan"))
    assert published(metric, 0.9, tolerance=0.2).reached(worse)
    assert reference.mark(worse, "0.01") == "MISSED by 0.01" and reference.mark(better, "") == "reached"


def test_a_number_without_a_better_side_is_reached_from_both():
    reference = published("latents/active_units", 20.0, tolerance=2.0)
    assert reference.reached(18.0) and reference.reached(22.0)
    assert not reference.reached(17.0) and not reference.reached(23.0)


def test_fields_are_those_of_the_configs():
    names = [[field.name for field in dataclasses.fields(kind)] for kind in (Reference, Published)]
    assert sorted(names[0]) == sorted(names[1])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("accuracy", 0.9, "a"), "EVALUATOR/NUMBER"),
        (("eval/accuracy", 0.9, " "), "no source"),
        (("eval/accuracy", float("nan"), "a"), "value=nan"),
        (("eval/accuracy", "0.9", "a"), "value='0.9'"),
        (("eval/accuracy", 0.9, "a", -0.1), "tolerance=-0.1"),
        (("eval/accuracy", 0.9, "a", float("inf")), "tolerance=inf"),
    ],
)
def test_a_reference_that_says_too_little_is_refused(arguments, message):
    with pytest.raises(UserError, match=message) as refused:
        Reference(*arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "record, message",
    [
        ({"metric": "eval/no_such"}, "no such number; accepted: eval/accuracy, eval/nll"),
        ({"source": ""}, "none of them empty"),
        ({"value": "0.9"}, "numbers as value and tolerance"),
        ({"surplus": 1}, "accepted: metric, source, tolerance, value"),
    ],
)
def test_stored_references_are_checked(record, message):
    whole = dataclasses.asdict(published("eval/accuracy", 0.9))
    assert checked([whole], EVALUATION, "here") == (published("eval/accuracy", 0.9),)
    with pytest.raises(UserError, match=message):
        checked([{**whole, **record}], EVALUATION, "here")


def config(folder: Path, body: str) -> Path:
    path = folder / "configs" / "my_config.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"from configs.references import Reference\ndef references(config):\n    {body}\n")
    return path


def test_references_depend_on_the_config(tmp_path):
    config(tmp_path, "return (Reference('eval/accuracy', 0.1 * config.model.width, 'a'),)")
    argv = ["train.py", "--config=configs/my_config.py:accelerator=cpu,smoke"]
    for width in (3, 8):
        (found,) = declared(argv, {"model": {"width": width}}, tmp_path) or []
        assert found["value"] == pytest.approx(0.1 * width)


def test_code_from_elsewhere_is_not_run(tmp_path):
    outside = config(tmp_path, "raise RuntimeError('was run')")
    inside = tmp_path / "here"
    inside.mkdir()
    for name in (str(outside), "../configs/my_config.py", "configs/none.py"):
        assert declared(["train.py", f"--config={name}"], {}, inside) is None
    (inside / "link.py").symlink_to(outside)
    assert declared(["train.py", "--config=link.py"], {}, inside) is None
    assert declared(["train.py"], {}, inside) is None
    with pytest.raises(RuntimeError, match="was run"):  # so the file above would have told
        declared(["train.py", "--config=configs/my_config.py"], {}, tmp_path)


@pytest.mark.parametrize(
    "body, message",
    [
        ("return Reference('eval/accuracy', 0.1, 'a').value", "accepted: a tuple of"),
        ("return [{'metric': 'eval/accuracy'}]", "accepted: a tuple of"),
        ("return (Reference('eval/accuracy', config.model.no_such, 'a'),)", "a setting that the run has not"),
        ("return (Reference('eval/accuracy', 0.1, ''),)", "no source"),
    ],
)
def test_what_a_config_declares_is_checked(tmp_path, body, message):
    config(tmp_path, body)
    with pytest.raises(UserError, match=message):
        declared(["train.py", "--config=configs/my_config.py"], {"model": {"width": 1}}, tmp_path)


def test_the_config_file_of_a_command():
    assert config_file(["train.py", "--config=a.py:smoke", "--config.seed=1"]) == "a.py"
    assert config_file(["train.py", "--config", "b.py"]) == "b.py"
    assert config_file(["train.py"]) is None


@pytest.mark.parametrize("path", DECLARING)
def test_what_the_configs_declare_fits_their_evaluators(path):
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    resolved = build.to_plain(module.get_config("accelerator=cpu"))
    for record in declared(["train.py", f"--config={path}"], resolved, ROOT) or []:
        evaluator = record["metric"].partition("/")[0]
        assert evaluator in {*resolved["evaluators"], "judge", "distribution"}, record


@pytest.mark.parametrize("path", [path for path in DECLARING if path.startswith("configs/vae/")])
@pytest.mark.parametrize("draws, bound, count", [(1, 5000, 1), (50, 5000, 1), (2, 5000, 0), (50, 500, 0)])
def test_a_bound_is_held_to_the_figure_of_its_draws(path, draws, bound, count):
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    resolved = build.to_plain(module.get_config("accelerator=cpu"))
    resolved["model"]["num_draws"], resolved["evaluators"]["bound"]["num_samples"] = draws, bound
    assert len(declared(["train.py", f"--config={path}"], resolved, ROOT) or []) == count


def test_some_config_declares():
    assert "configs/classifier/fashion_mnist_cnn.py" in DECLARING
