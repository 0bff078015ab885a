"""The documentation is about what is there: links, paths, commands and Python in every Markdown file.

A path with ``my_``, ``<``, ``{`` or ``*`` in it is an example that the reader makes up.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IGNORED = {".git", ".pytest_cache", "build", "dist", "runs", "node_modules"}

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(
    r"(?<![\w/.-])(?:genjax|experiments|configs|tests|docs|benchmarks)/[\w./<>{}*-]*\w\.(?:py|md|npz|toml)\b"
)
MODULE = re.compile(r"python[\w.]* -m ((?:genjax|experiments|benchmarks)[\w.]*)")
CONFIG = re.compile(r"--config[= ]([^\s:`'\"]+)")
MAKE = re.compile(r"(?:^|[`;&]|\$ )\s*make ((?:[\w-]+ ?)+?)(?=[A-Z]+=|[`#\n;&]|$|  )", re.MULTILINE)


def documents() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*.md")):
        parts = path.relative_to(ROOT).parts
        if not any(p in IGNORED or p.startswith(".venv") for p in parts):
            yield path


def made_up(path: str) -> bool:
    return "my_" in path or any(c in path for c in "<{*")


def anchors(text: str) -> set[str]:
    """Names of the headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ +(.+?) *#*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(text: str, folder: Path) -> list[str]:
    found = []
    for target in LINK.findall(FENCE.sub("", text)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        whole = folder / path if path else None
        if whole is not None and not whole.exists():
            found.append(f"link to {target}")
        elif anchor and (whole is None or whole.suffix == ".md"):
            there = text if whole is None else whole.read_text()
            found += [] if anchor in anchors(there) else [f"link to {target}: no such heading"]
    return found


def broken_paths(text: str, folder: Path) -> list[str]:
    del folder
    named = [*PATH.findall(text), *CONFIG.findall(text)]
    found = [f"path {p}" for p in dict.fromkeys(named) if not made_up(p) and not (ROOT / p).exists()]
    for module in dict.fromkeys(MODULE.findall(text)):
        path = ROOT / module.rstrip(".").replace(".", "/")
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
            found.append(f"module {module}")
    return found


def broken_targets(text: str, folder: Path) -> list[str]:
    del folder
    known = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join([*(f"`{c}`" for c in CODE.findall(FENCE.sub("", text))), *(m[3] for m in FENCE.finditer(text))])
    return [f"make {t}" for words in MAKE.findall(code) for t in words.split() if t not in known]


def broken_python(text: str, folder: Path) -> list[str]:
    del folder
    found = []
    for match in FENCE.finditer(text):
        if match[2] in ("python", "py"):
            source = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
            try:
                ast.parse(source)
            except SyntaxError as error:
                found.append(f"python: {error.msg} in {(error.text or '').strip()!r}")
    return found


CHECKS = [broken_links, broken_paths, broken_targets, broken_python]


@pytest.mark.parametrize("check", CHECKS)
def test_documents(check):
    offences = [f"{p.relative_to(ROOT)}: {o}" for p in documents() for o in check(p.read_text(), p.parent)]
    assert not offences, "\n" + "\n".join(offences)


def test_demo_names_a_config_that_is_there():
    makefile = (ROOT / "Makefile").read_text()
    named = re.search(r"^DEMO_CONFIG \?= ([^:\s]+)", makefile, re.MULTILINE)
    assert named and (ROOT / named[1]).exists(), f"DEMO_CONFIG is {named and named[1]}"


BROKEN = {
    broken_links: ["[a](no_such.md)", "[a](#no-such-heading)\n# Another", "[a](../README.md#no-such-heading-there)"],
    broken_paths: [
        "see `genjax/no_such.py`",
        "configs/no_such/a.py",
        "```\npython -m experiments.no_such\n```",
        "```\npython -m experiments.train --config=no_such.py:accelerator=cpu\n```",
    ],
    broken_targets: ["`make no-such`", "```\nmake lint no-such\n```", "```sh\n$ make no-such ARGS=1\n```"],
    broken_python: ["```python\ndef f(:\n```", "- a\n  ```py\n  x = = 1\n  ```"],
}
FINE = """
# The *first* heading: `x`
[here](#the-first-heading-x) [there](../pyproject.toml) [web](https://example.com/a#b)
Run `make lint test ARGS="-m 'not slow'"`, or make something of `genjax/types.py`, `genjax/networks/my_net.py`
and `configs/<family>/<dataset>_<model>.py`.
```sh
make test PYTHON=python3.12 VENV=.venv312  # both lines
cmake no-such
```
- an item
  ```python
  def f(x):
      return x
  ```
"""


@pytest.mark.parametrize("check", CHECKS)
def test_check_finds_what_is_broken(check):
    assert [text for text in BROKEN[check] if not check(text, ROOT / "tests")] == []


@pytest.mark.parametrize("check", CHECKS)
def test_check_leaves_the_rest_alone(check):
    assert check(FINE, ROOT / "tests") == []
