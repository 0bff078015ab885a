"""Ways to train the runs of a sweep, by name; ``base`` says what one is."""

from experiments.executors import local, population, slurm
from experiments.executors.base import Executor

EXECUTORS: dict[str, Executor] = {"local": local.train, "population": population.train, "slurm": slurm.train}
