"""Prepare a TFDS data set from original files, without a network.

    python -m experiments.prepare fashion_mnist --from=~/Downloads/fashion_mnist

The files are checked (size and sha256), put into TFDS's download cache and turned into array_record by TFDS's own
builder, which needs TensorFlow: pip install 'genjax[prepare]'. Reading the prepared set needs no TensorFlow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from genjax.data import preparing
from genjax.types import UserError

_EPILOG = """\
The original files are those that TFDS would download, under their original names, for example
  mnist, fashion_mnist   train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz
                         t10k-images-idx3-ubyte.gz   t10k-labels-idx1-ubyte.gz
  binarized_mnist        binarized_mnist_{train,valid,test}.amat   (or .amat.gz)
  cifar10                cifar-10-binary.tar.gz, or data_batch_{1..5}.webp, test_batch.webp and labels.npz
If some are missing, the message names them. Exit status: 0 prepared, 2 not.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.prepare",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="name in TFDS, with a config if it has several: emnist/letters")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        help="folder with the original files, or with a sub-folder NAME that has them; "
        "default: only TFDS's own download cache and <data_dir>/downloads/manual",
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="where prepared sets are kept; default: $TFDS_DATA_DIR or else ~/tensorflow_datasets",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (default: the process's); returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        builder, done = preparing.prepare(arguments.name, source=arguments.source, data_dir=arguments.data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    splits = ", ".join(f"{name} {info.num_examples:,}" for name, info in builder.info.splits.items())
    print("\n".join([*done, f"{arguments.name} is in {builder.data_path}: {splits}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
