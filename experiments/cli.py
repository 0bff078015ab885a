"""What the commands share: flags in, one line and an exit status out.

Exit status: 0 done, 1 a bug or the machine's fault (with a traceback), 2 something the user can mend, 3 the training
diverged, 130 and 143 interrupted by SIGINT and SIGTERM after saving.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from absl import flags

from genjax.types import UserError

USAGE, DIVERGED = 2, 3


def run(main: Callable[[], int | None], doc: str) -> None:
    """Parses the flags, calls ``main`` and exits."""
    try:
        rest = _parse(doc)
        if rest:
            raise UserError(f"argument {rest[0]!r} is not understood; every setting is a flag, see --help")
        status = main()
    except UserError as error:
        status = fail(str(error), USAGE)
    except KeyboardInterrupt:
        status = fail("interrupted", 130)
    sys.exit(status or 0)


def fail(message: str, status: int) -> int:
    """Prints the one line and hands back the status."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


def _parse(doc: str) -> list[str]:
    flags.FLAGS.set_gnu_getopt(True)
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(doc.strip(), "", sep="\n")
        print(flags.FLAGS.module_help("__main__") or flags.FLAGS.main_module_help())
        sys.exit(0)
    try:
        with warnings.catch_warnings():
            return flags.FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"--config: {error}") from error
    except AttributeError as error:
        # ml_collections says which key was misspelt in the last of several chained errors.
        raise UserError(f"--config: {error}") from error
