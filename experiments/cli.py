"""What the commands share: flags in, one line and an exit status out.

Exit status: 0 done, 1 a bug or the machine's fault (with a traceback), 2 something the user can mend, 3 the training
diverged, 4 another process of the same run was lost, 130 and 143 interrupted by SIGINT and SIGTERM after saving.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import flags

from genjax.types import UserError

USAGE, DIVERGED, LOST = 2, 3, 4


def run(main: Callable[..., int | None], doc: str | None, positional: bool = False) -> None:
    """Parses the flags, calls ``main`` and exits.

    ``main`` takes no argument, or with ``positional`` the list of what stands on the command line beside the flags.
    """
    try:
        rest = _parse(doc or "")
        if rest and not positional:
            raise UserError(f"argument {rest[0]!r} is not understood; every setting is a flag, see --help")
        status = main(rest) if positional else main()
    except UserError as error:
        status = fail(str(error), USAGE)
    except KeyboardInterrupt:
        status = fail("interrupted", 130)
    _exit(status or 0)


def _exit(status: int) -> NoReturn:
    # Loaded where checkpoints are written; commands that need none start faster without it.
    saving = sys.modules.get("genjax.io.quiet")
    if saving is not None and saving.save_failed():
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def fail(message: str, status: int) -> int:
    """Prints the one line and hands back the status."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


def leave(message: str, status: int) -> NoReturn:
    """Prints the one line and ends the process at once, without waiting for processes that no longer answer."""
    fail(message, status)
    sys.stdout.flush()
    os._exit(status)


def _parse(doc: str) -> list[str]:
    flags.FLAGS.set_gnu_getopt(True)
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(doc.strip(), "", sep="\n")
        print(flags.FLAGS.module_help("__main__") or flags.FLAGS.main_module_help())
        sys.exit(0)
    try:
        return flags.FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise UserError(str(error)) from error
    except SyntaxError as error:
        raise UserError(f"--config: {error.filename}, line {error.lineno}: {error.msg}") from error
    except (AttributeError, KeyError) as error:
        line = _misspelt(error)
        if line is None:
            raise  # a bug in the config file, whose place the traceback shows
        raise UserError(line) from error


def _misspelt(error: Exception) -> str | None:
    """One line about an override whose key does not exist, from what ml_collections says, with the flag as typed.

    None when no override names the key.
    """
    text = str(error)
    key, near = re.search(r"'(\w+)", text), re.search(r'Did you mean "(\w+)"', text)
    names = (argument.partition("=")[0] for argument in sys.argv if argument.startswith("--config."))
    typed = next((name for name in names if key and key[1] in name.split(".")), None)
    if typed is None:
        return None
    hint = f"did you mean {near[1]!r}?" if near else "the config file shows which there are"
    return f"{typed}: no such setting; {hint}"


def config_of(flag: Any) -> dict[str, Any] | None:
    """What a ``config_file`` flag holds, None when it was not given; a file that can't be loaded is a ``UserError``."""
    try:
        return None if flag.value is None else dict(flag.value.items())
    except OSError as error:
        path = next((argument.partition("=")[2] for argument in sys.argv if argument.startswith("--config=")), "")
        raise UserError(f"--config={path}: no such file; accepted: one such as configs/vae/mnist_conv.py") from error


def varied(flags_given: list[str], population: int | None, seed: int) -> dict[str, list[Any]]:
    """What ``--vary=setting=value,value`` and ``--population`` ask for: the values of each setting, dotted.

    Raises:
      UserError: a flag is not of that form, or two of them vary one setting.
    """
    values: dict[str, list[Any]] = {"seed": [seed + i for i in range(population)]} if population else {}
    for given in flags_given:
        name, equals, listed = given.partition("=")
        name = name.removeprefix("config.")
        if not equals or not name or not listed:
            raise UserError(f"--vary={given}: accepted: a setting and its values, such as seed=0,1,2")
        if name in values:
            raise UserError(f"--vary={given}: {name} varies already; accepted: one --vary or --population for it")
        values[name] = [_number(text, given) for text in listed.split(",")]
    return values


def _number(text: str, given: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    raise UserError(f"--vary={given}: {text!r} is no number")


def settings_of(flags_given: list[str]) -> dict[str, Any]:
    """What ``--set=model.sampler.num_steps=4`` asks for: values by dotted name.

    Numbers, true, false and none are what they look like, values with a comma between them a tuple, the rest strings.

    Raises:
      UserError: a flag is not of that form, or two of them give one setting.
    """
    values: dict[str, Any] = {}
    for given in flags_given:
        name, equals, text = given.partition("=")
        name = name.removeprefix("config.")
        if not name or not equals or not text:
            raise UserError(f"--set={given}: accepted: a setting and its value, such as model.sampler.num_steps=4")
        if name in values:
            raise UserError(f"--set={given}: {name} is set already; accepted: each setting once")
        values[name] = _value(text)
    return values


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part) for part in text.strip("() ").split(",") if part.strip())
    text = text.strip()
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
