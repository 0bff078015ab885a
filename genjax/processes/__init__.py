"""Paths from data to noise, what a network predicts on them, training levels with weights, and sampling grids."""

from genjax.processes.grids import EvenGrid, KarrasGrid, LogSNRGrid, QuadraticGrid, ShiftedGrid, UniformGrid
from genjax.processes.levels import (
    P2,
    Discrete,
    EDMWeighting,
    EpsWeighting,
    LogitNormal,
    LogNormal,
    MinSNR,
    Uniform,
    UniformLogSNR,
    VelocityWeighting,
    VWeighting,
    X0Weighting,
)
from genjax.processes.paths import EDM, VE, Linear, SubVP, VPCosine, VPLinear
from genjax.processes.predictions import X0, EDMPrediction, Eps, Score, V, Velocity

PATHS = {"vp_linear": VPLinear, "vp_cosine": VPCosine, "ve": VE, "sub_vp": SubVP, "edm": EDM, "linear": Linear}
PREDICTIONS = {"eps": Eps, "x0": X0, "v": V, "velocity": Velocity, "score": Score, "edm": EDMPrediction}
LEVELS = {
    "uniform": Uniform,
    "logit_normal": LogitNormal,
    "edm_log_normal": LogNormal,
    "uniform_log_snr": UniformLogSNR,
    "discrete": Discrete,
}
WEIGHTINGS = {
    "x0": X0Weighting,
    "eps": EpsWeighting,
    "v": VWeighting,
    "velocity": VelocityWeighting,
    "edm": EDMWeighting,
    "min_snr": MinSNR,
    "p2": P2,
}
GRIDS = {
    "karras": KarrasGrid,
    "uniform": UniformGrid,
    "even": EvenGrid,
    "quadratic": QuadraticGrid,
    "shifted": ShiftedGrid,
    "log_snr": LogSNRGrid,
}
