"""The rules of the house, read off the source: who imports whom, how long things are, what must not be there.

Every rule is a function ``(File) -> offences``, and every rule is tried on a file that breaks it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

GROUND = {"genjax.types", "genjax.rng", "genjax.tree"}
BELOW_FAMILIES = GROUND | {
    f"genjax.{p}" for p in ("ops", "networks", "objectives", "processes", "samplers", "metrics", "data")
}
BASE = {"genjax.families.base", "genjax.families.averaging"}

# What each part may import of the project, besides itself. A name stands for a module or a whole package.
ALLOWED = {
    "genjax.types": set(),
    "genjax.rng": {"genjax.types"},
    "genjax.tree": {"genjax.types"},
    "genjax.ops": GROUND,
    "genjax.objectives": GROUND | {"genjax.processes"},
    "genjax.processes": GROUND,
    "genjax.samplers": GROUND | {"genjax.processes"},
    "genjax.metrics": GROUND,
    "genjax.data": GROUND,
    "genjax.sweep": {"genjax.types"},
    "genjax.networks": GROUND | {"genjax.ops"},
    "genjax.families": BELOW_FAMILIES,
    "genjax.tasks": BELOW_FAMILIES | BASE,
    # The reader of weight files is a pure function of a path that imports types alone.
    "genjax.evaluators": BELOW_FAMILIES | BASE | {"genjax.io.torch_weights"},
    "genjax.io": GROUND | BASE,
    "genjax.train": GROUND | BASE | {"genjax.data", "genjax.evaluators.base", "genjax.io"},
    # What binds the parts together may see them all; nothing but the experiments sees it.
    "genjax.build": {"genjax"},
    "genjax.populations": {"genjax"},
    "genjax": set(),
    "experiments": BASE
    | {f"genjax.{p}" for p in ("build", "populations", "train", "types", "io", "data", "evaluators", "sweep")},
    "configs": {"genjax.types", "genjax.sweep"},
}
JIT_ONLY_IN = "genjax.train"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


@dataclasses.dataclass(frozen=True)
class File:
    path: str
    source: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @property
    def module(self) -> str:
        parts = Path(self.path).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        return self.module if self.path.endswith("__init__.py") else self.module.rpartition(".")[0]


def is_in(module: str, parents: set[str]) -> bool:
    return any(module == p or module.startswith(p + ".") for p in parents)


def imports(file: File) -> Iterator[tuple[int, str]]:
    """Every (line, dotted name) that the file imports, wherever in the file; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = file.package.split(".")[: len(file.package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def wrong_imports(file: File) -> list[str]:
    """Imports that go the wrong way."""
    part = max((p for p in ALLOWED if is_in(file.module, {p})), key=len)
    own = {part} if part != "genjax" else set()
    if part == "genjax" and file.module != "genjax":
        return [f"{file.path}: {file.module} is no part that tests/test_layout.py knows"]
    return [
        f"{file.path}:{line}: {part} may not import {name}"
        for line, name in imports(file)
        if name.split(".")[0] in ("genjax", "experiments", "configs", "tests", "benchmarks")
        and not is_in(name, ALLOWED[part] | own)
    ]


def compiles_outside_train(file: File) -> list[str]:
    """``jax.jit`` and its like anywhere but in ``genjax/train``."""
    if is_in(file.module, {JIT_ONLY_IN}):
        return []
    names = {"jit", "pjit", "pmap"}
    found = [(line, name) for line, name in imports(file) if name.startswith("jax.") and name.split(".")[-1] in names]
    found += [
        (node.lineno, f"{node.value.id}.{node.attr}")
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute) and node.attr in names and isinstance(node.value, ast.Name)
    ]
    return [f"{file.path}:{line}: {name} belongs in {JIT_ONLY_IN}" for line, name in found]


def guesses_defaults(file: File) -> list[str]:
    """``config.get(key, default)``: a misspelt key would go unseen."""
    return [
        f"{file.path}:{node.lineno}: {ast.unparse(node)} hides a missing key"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and re.search(r"(config|cfg)(\.\w+)*$", ast.unparse(node.func.value))
    ]


def reads_flags(file: File) -> list[str]:
    """Parsing the command line, which belongs to ``experiments``."""
    if not is_in(file.module, {"genjax"}):
        return []
    parsers = {"absl.flags", "absl.app", "argparse", "getopt", "ml_collections.config_flags"}
    return [f"{file.path}:{line}: {name} in the library" for line, name in imports(file) if is_in(name, parsers)]


def own_lines(function: ast.AST) -> int:
    """Lines of a function without those of the functions inside it, which count for themselves."""
    inner = 0
    inside = list(ast.iter_child_nodes(function))
    while inside:
        node = inside.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner += node.end_lineno - node.lineno + 1
        else:
            inside += ast.iter_child_nodes(node)
    return function.end_lineno - function.lineno + 1 - inner


def too_long(file: File) -> list[str]:
    lines = len(file.source.splitlines())
    found = [f"{file.path}: {lines} lines, the limit is {MAX_FILE_LINES}"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (own := own_lines(node)) > MAX_FUNCTION_LINES:
            found.append(f"{file.path}:{node.lineno}: {node.name} has {own} lines, the limit is {MAX_FUNCTION_LINES}")
    return found


# Hosts are spelt in pieces, so that this file passes its own test.
HOSTS = [".".join(h) for h in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian", "org"))]
NOT_HERE = re.compile(
    r"(?<![\w.}*-])/(?:root|work|opt|tmp|(?:home|Users)/\w+)(?=/|\b)|" + "|".join(map(re.escape, HOSTS))
)


def names_a_machine(file: File) -> list[str]:
    """Absolute paths of somebody's machine, and hosts that packages come from."""
    return [
        f"{file.path}:{number}: {match[0]}"
        for number, line in enumerate(file.source.splitlines(), 1)
        for match in NOT_HERE.finditer(line)
    ]


def repository_files() -> list[str]:
    """Paths of all files that are or would be committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    return sorted(p for p in set(listed) if (ROOT / p).is_file())


def text_files() -> list[File]:
    files = []
    for path in repository_files():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            files.append(File(path, data.decode()))
    return files


def source_files(*packages: str) -> list[File]:
    paths = [p for package in packages for p in sorted((ROOT / package).rglob("*.py"))]
    assert paths
    return [File(str(p.relative_to(ROOT)), p.read_text()) for p in paths]


RULES: list[Callable[[File], list[str]]] = [
    wrong_imports,
    compiles_outside_train,
    guesses_defaults,
    reads_flags,
    too_long,
]


@pytest.mark.parametrize("rule", RULES)
def test_source_keeps_the_rule(rule):
    offences = [o for file in source_files("genjax", "experiments", "configs") for o in rule(file)]
    assert not offences, "\n" + "\n".join(offences)


def test_no_file_names_a_machine():
    offences = [o for file in text_files() for o in names_a_machine(file)]
    assert not offences, "\n" + "\n".join(offences)


BROKEN = {
    wrong_imports: [
        File("genjax/objectives/a.py", "import genjax.networks.unet"),
        File("genjax/objectives/a.py", "def f():\n    from genjax import networks"),
        File("genjax/objectives/a.py", "from ..families.base import Family"),
        File("genjax/processes/__init__.py", "from .. import samplers"),
        File("genjax/networks/a.py", "from genjax.data.base import Source"),
        File("genjax/evaluators/a.py", "from genjax.families import gan"),
        File("genjax/evaluators/a.py", "from genjax.io.checkpoint import Checkpoints"),
        File("genjax/train/loop.py", "from genjax.families import FAMILIES"),
        File("genjax/train/loop.py", "from genjax.families.base_gan import f"),
        File("genjax/train/loop.py", "from genjax.build import build_family"),
        File("genjax/train/loop.py", "from genjax.evaluators.frechet import Frechet"),
        File("genjax/io/checkpoint.py", "from genjax.train import loop"),
        File("genjax/rng.py", "from genjax import tree"),
        File("genjax/types.py", "import genjax"),
        File("genjax/__init__.py", "from genjax import types"),
        File("genjax/data/a.py", "import experiments.train"),
        File("genjax/helpers/a.py", ""),
        File("experiments/train.py", "from genjax.families import gan"),
        File("configs/a.py", "from genjax.networks import unet"),
    ],
    compiles_outside_train: [
        File("genjax/networks/a.py", "import jax\nf = jax.jit(g)"),
        File("genjax/networks/a.py", "from jax import jit"),
        File("genjax/training/a.py", "@partial(jax.jit, static_argnums=0)\ndef f(): ..."),
        File("experiments/a.py", "import flax.linen as nn\nnn.jit(f)"),
    ],
    guesses_defaults: [
        File("genjax/a.py", "lr = config.get('lr', 0.1)"),
        File("experiments/a.py", "self.config.model.get('lr')"),
    ],
    reads_flags: [
        File("genjax/a.py", "from absl import flags"),
        File("genjax/data/a.py", "if __name__ == '__main__':\n    from absl import app"),
        File("genjax/a.py", "import argparse"),
    ],
    too_long: [
        File("genjax/a.py", "\n" * (MAX_FILE_LINES + 1)),
        File("genjax/a.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
        File("genjax/a.py", "def f():\n    def g():\n" + "        x = 1\n" * MAX_FUNCTION_LINES),
    ],
    names_a_machine: [
        File("README.md", "see /ro" + "ot/x"),
        File("a.py", "'/ho" + "me/ada/data'"),
        File("constraints.txt", "--index-url https://" + HOSTS[0] + "/simple"),
    ],
}
FINE = [
    File("genjax/objectives/a.py", "from genjax.types import Array\nfrom .elbo import kl\nfrom genjax import rng"),
    File("genjax/networks/__init__.py", "from . import unet\nfrom ..ops import conv"),
    File("genjax/train/loop.py", "import jax\nfrom genjax.families import base\nf = jax.jit(g)"),
    File("experiments/train.py", "from absl import flags\nfrom genjax.build import build\noptions.get('a')"),
    File("genjax/build.py", "from genjax.families import FAMILIES\nfrom genjax import families"),
    File("genjax/ops/a.py", "def f():\n" + ("    def g():\n" + "        x = 1\n" * 40) * 2),
    File("genjax/data/a.py", "# ~/data, data/work/x, {root}/work and https://example.com/home\n" + "x = 1\n" * 300),
]


@pytest.mark.parametrize("rule", BROKEN)
def test_rule_finds_what_is_broken(rule):
    missed = [file for file in BROKEN[rule] if not rule(file)]
    assert not missed


@pytest.mark.parametrize("rule", BROKEN)
def test_rule_leaves_the_rest_alone(rule):
    assert [offence for file in FINE for offence in rule(file)] == []


IMPORT_ALL = """
import importlib, os, pkgutil, sys
import genjax
names = sorted(m.name for m in pkgutil.walk_packages(genjax.__path__, "genjax."))
for name in names:
    importlib.import_module(name)
{then}
from absl import flags
import jax._src.xla_bridge as bridge
assert len(names) > 20, names
assert not bridge.backends_are_initialized(), "a device was touched"
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
defined = [m for m in flags.FLAGS.flags_by_module_dict() if m.startswith("genjax")]
assert not defined and not flags.FLAGS.is_parsed(), f"flags: {{defined}}"
assert not os.listdir("."), "files were written"
"""


def import_all(folder: Path, then: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", IMPORT_ALL.format(then=then), "--no_such_flag"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_importing_the_library_does_nothing(tmp_path):
    result = import_all(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), result.stderr


@pytest.mark.parametrize(
    "effect, complaint",
    [
        ("import jax.numpy; jax.numpy.zeros(1)", "a device was touched"),
        ("open('log', 'w').close()", "files were written"),
        ("from absl import flags; flags.DEFINE_string('s', '', '', module_name='genjax.a')", "flags: ['genjax.a']"),
    ],
)
def test_a_side_effect_would_be_seen(tmp_path, effect, complaint):
    result = import_all(tmp_path, effect)
    assert result.returncode != 0 and complaint in result.stderr
