"""Losses as pure functions that return one value per example."""

from genjax.objectives.consistency import Consistency
from genjax.objectives.denoising import Denoising
from genjax.objectives.mean_flow import MeanFlow

OBJECTIVES = {"denoising": Denoising, "mean_flow": MeanFlow, "consistency": Consistency}
