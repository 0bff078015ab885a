"""What is imported is declared, what is declared is used, and what was tested is pinned."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import tomllib

import pytest

from tests.test_layout import ROOT, imports, source_files

# Dependencies that nothing imports, and why they are there all the same.
NOT_IMPORTED = {
    "importlib-resources": "tensorflow-datasets imports it without asking for it",
    "tensorboard": "shows what the runs wrote",
    "basedpyright": "a program",
    "ruff": "a program",
    "tensorflow-cpu": "tensorflow-datasets imports it to encode a data set",
}
# Packages whose module has another name.
MODULES = {"absl-py": "absl", "orbax-checkpoint": "orbax", "pillow": "PIL", "scikit-learn": "sklearn"}
ON_DEMAND = ("export", "search", "slurm")  # extras whose absence the commands that need them report
OURS = {"genjax", "experiments", "configs", "tests", "benchmarks"}


def declared(*extras: str) -> dict[str, str]:
    """Module name -> package name of what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] if not extras else []
    wanted = [*wanted, *(r for extra in extras for r in project["optional-dependencies"][extra])]
    names = [re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in wanted]
    lower = {name: name.lower().replace("_", "-") for name in names if name != "genjax"}
    return {MODULES.get(key, name.replace("-", "_")): key for name, key in lower.items()}


def imported(*packages: str) -> dict[str, str]:
    """Module name -> a place that imports it, without the standard library and our own packages."""
    found = {}
    by_name = re.compile(r"(?:importorskip|import_module)\(\"(\w+)")
    for file in source_files(*packages):
        named = ((file.source.count("\n", 0, m.start()) + 1, m[1]) for m in by_name.finditer(file.source))
        for line, name in [*imports(file), *named]:
            found.setdefault(name.split(".")[0], f"{file.path}:{line}")
    return {m: place for m, place in found.items() if m not in sys.stdlib_module_names and m not in OURS}


def test_every_import_is_declared():
    core, extra = declared(), declared("test", "prepare", *ON_DEMAND)
    used = declared() | declared(*ON_DEMAND)
    missing = {m: place for m, place in imported("genjax", "experiments", "configs").items() if m not in used}
    missing |= {m: place for m, place in imported("tests").items() if m not in core and m not in extra}
    # TensorFlow is only ever asked for by name in an error message or in a function that prepares data.
    missing.pop("tensorflow", None)
    assert not missing


def test_every_dependency_is_used():
    used, tested = imported("genjax", "experiments", "configs"), imported("tests")
    idle = {name for module, name in declared().items() if module not in used}
    idle |= {name for module, name in declared("test", "dev", "prepare").items() if module not in tested}
    assert idle <= set(NOT_IMPORTED), f"nothing imports {sorted(idle - set(NOT_IMPORTED))}"


def test_constraints_pin_every_dependency():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pin = re.compile(r"([a-z0-9-]+)==([\w.]+)(?: ; (?:python_full_version|sys_platform) [<>=!]+ '[\w.]+')?")
    pinned = {match[1]: match[2] for line in lines if (match := pin.fullmatch(line))}
    assert [line for line in lines if not pin.fullmatch(line)] == []
    wanted = {*declared().values(), *declared("test", "dev", "prepare", *ON_DEMAND).values()}
    assert wanted - set(pinned) == set()
    for name, version in (("jax", "0.10.2"), ("flax", "0.12.8")):
        assert f"{name}=={version} ; python_full_version < '3.12'" in lines


def test_the_installed_versions_are_the_pinned_ones():
    if not os.environ.get("CI"):
        pytest.skip("a developer may try other versions")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        allowed = [line.split("==")[1].split()[0] for line in lines if line.startswith(f"{name}==")]
        assert importlib.metadata.version(name) in allowed
