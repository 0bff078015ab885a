"""``python -m benchmarks``: every benchmark, one after the other."""

from benchmarks import conv

if __name__ == "__main__":
    conv.main()
