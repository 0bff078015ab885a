"""Runs many command lines in one interpreter, so that starting Python and importing jax is paid once.

Reads a JSON list of {"module", "arguments", "cwd"} from standard input and writes a JSON list of {"status", "out",
"err", "compiled"} to standard output. Each command runs as ``python -m module`` would: as ``__main__``, with its
own flags and with whatever reaches the descriptors of stdout and stderr.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import traceback

import jax
from absl import flags

compiled = 0


def count_compilation(name: str, seconds: float, **details: object) -> None:
    global compiled
    compiled += "backend_compile" in name


def main_of(module: str, arguments: list[str]) -> int:
    """The exit status of one command; its flags are forgotten afterwards."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
        return 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        own = (module, "absl.flags._flag")  # of the command, and of settings of its config; packages keep theirs
        for name in [name for name in flags.FLAGS if flags.FLAGS.find_module_defining_flag(name) in own]:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


def run(case: dict) -> dict:
    os.chdir(case["cwd"])
    kept = [os.dup(1), os.dup(2)]
    compiled_before = compiled
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        try:
            status = main_of(case["module"], case["arguments"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
        texts = {}
        for name, file in (("out", out), ("err", err)):
            file.seek(0)
            texts[name] = file.read().decode()
    return {"status": status, "compiled": compiled - compiled_before, **texts}


if __name__ == "__main__":
    jax.monitoring.register_event_duration_secs_listener(count_compilation)
    print(json.dumps([run(case) for case in json.load(sys.stdin)]))
