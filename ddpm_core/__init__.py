"""Edit-friendly noise maps for diffusion models (Huberman-Spiegelglas et al., arXiv 2304.06140,
CVPR 2024).

The core knows one kind of model: ``denoise(x, sigma) -> x0_hat`` with x (B, C, *S) and sigma (B,).
Guidance, prompts, parameterisation and host are closures outside it. Importing this package needs
torch alone.

Glossary (the paper's symbol: the word at the boundaries)
    B, C, *S      batch, latent channels, and the spatial sizes: (H, W), or (F, H, W) with F frames
    T, R          steps of the whole schedule, and those of them from skip on
    x_t           latents: the path from noise to picture, in the order of execution; the last one
                  is x_0
    x0_hat        predictions: the model's estimate of the clean latent from x_t
    z_t           noise maps: (x_{t-1} - mu_t(x_t)) / sigma_t, eq. 5
    up            the standard deviation of the noise that a step adds (the paper's sigma_t)
    residual      x_next - mean = up z, kept instead of z because it also exists where up is 0
    sigma         noise level: x = alpha x_0 + sigma e; alpha is 1 (VE) or 1 - sigma (flow)
    sigmas        the noise levels of a schedule, strictly decreasing: the name at every boundary;
                  ``Plan.levels`` is the same as a tensor
    skip          steps of the schedule left out at its noisy end (the paper's T - T_skip)
    eta           1 is DDPM, 0 is DDIM

and of a step, from sigma to sigma_next
    down          the noise level before the step adds noise: sqrt(sigma_next^2 - up^2)
    carry         the weight of x in the mean: down / sigma, so that old noise goes on as carry n
    reach         the weight of x0_hat in the mean: alpha_next - carry alpha, of the first order
    history       the weight of x0_hat - x0_before in the mean, of the second order
    pull          what a colour push subtracts: pull x0_hat, with the prediction of the run itself
    own           a residual without the path's noise, residual - (n_next - carry n): what leads
                  from the prediction back to the picture
"""

from .edits.color import paint, parse_color, push_color
from .edits.flip import flip
from .edits.mix import mix
from .edits.scale import scale
from .edits.shift import shift
from .inversions.edit_friendly import auxiliary_path, invert
from .maps import NoiseMaps
from .plan import Plan
from .replay import replay, replay_several
from .steps import Process, Solver, Step, schedule

__all__ = [
    "NoiseMaps",
    "Plan",
    "Process",
    "Solver",
    "Step",
    "auxiliary_path",
    "flip",
    "invert",
    "mix",
    "paint",
    "parse_color",
    "push_color",
    "replay",
    "replay_several",
    "scale",
    "schedule",
    "shift",
]
