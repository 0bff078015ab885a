"""``python -m benchmarks.speed``: genjax, PyTorch and Keras on the same networks, in one table.

The peers run under their own interpreter, ``.venv-peers`` unless told otherwise (`make bench` makes it), or under this
one where it has them. A framework that can't be had is listed with the reason. No time is asserted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NoReturn

from benchmarks.speed import report
from benchmarks.speed.frameworks import FRAMEWORKS
from benchmarks.speed.measure import ROOT, Plan, measure
from benchmarks.speed.workload import NETWORKS

PEERS = ROOT / ".venv-peers/bin/python"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, and status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(text.split(",")))
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown; accepted: {', '.join(known)}")
        return given

    return parse


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def interpreter(package: str) -> str:
    """This one if it has the package, otherwise the peers'."""
    return sys.executable if importlib.util.find_spec(package) or not PEERS.exists() else str(PEERS)


def python(text: str) -> str:
    """An interpreter as given: its links are not followed, since a virtual environment is one."""
    path = os.path.abspath(text)
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{text!r} is no program")
    return path


def output(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} can't be written")
    return path


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.speed", description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--networks", type=names(NETWORKS), default=tuple(NETWORKS), help=",".join(NETWORKS))
    parser.add_argument("--frameworks", type=names(FRAMEWORKS), default=tuple(FRAMEWORKS), help=",".join(FRAMEWORKS))
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--batch", type=positive, default=128, help="images in one update")
    parser.add_argument("--torch-python", type=python, metavar="PATH", help="interpreter that has torch")
    parser.add_argument("--keras-python", type=python, metavar="PATH", help="interpreter that has keras")
    parser.add_argument("--output", type=output, metavar="FILE.md", help="also put it between this file's markers")
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that it works")
    args = parser.parse_args(arguments)
    if args.output and args.output.exists():
        try:
            report.replace_block(args.output.read_text(), args.device, "")
        except ValueError as error:
            parser.error(f"argument --output: {args.output}: {error}")
    return args


def plan_of(args: argparse.Namespace) -> Plan:
    common = {
        "device": args.device,
        "networks": args.networks,
        "frameworks": args.frameworks,
        "pythons": {
            "genjax": sys.executable,
            "torch": args.torch_python or interpreter("torch"),
            "keras": args.keras_python or interpreter("keras"),
        },
        "batch": args.batch,
    }
    if args.quick:
        return Plan(**common, rounds=2, seconds=0.2, examples=2000, all_candidates=False)
    return Plan(**common, rounds=args.rounds)


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="genjax-speed-") as caches:
        plan = plan_of(args)
        outcome = measure(plan, Path(caches))
    block = report.document(plan, outcome, shlex.join(["python", "-m", "benchmarks.speed", *arguments]), load)
    print(block)
    if args.output:
        report.write(args.output, args.device, block)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
