"""Samplers: from noise to data by a denoiser or a map along the flow; guidance; the density of the same ODE."""

from genjax.samplers.adaptive import Adaptive
from genjax.samplers.deterministic import Euler, FlowMapSteps, Heun
from genjax.samplers.multistep import DPMPP2M, DPMPP2S, UniPC
from genjax.samplers.stochastic import DDIM, Ancestral, EDMChurn, MultistepConsistency, PredictorCorrector

SAMPLERS = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "edm_churn": EDMChurn,
    "dpmpp_2m": DPMPP2M,
    "dpmpp_2s": DPMPP2S,
    "unipc": UniPC,
    "adaptive": Adaptive,
    "predictor_corrector": PredictorCorrector,
    "multistep_consistency": MultistepConsistency,
    "flow_map": FlowMapSteps,
}
