"""``python -m benchmarks``: the benchmarks without peers; ``benchmarks.speed`` is the one with them."""

from benchmarks import conv

if __name__ == "__main__":
    conv.main()
