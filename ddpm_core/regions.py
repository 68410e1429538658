"""Where an edit will change the picture: masks read off the path, without any edit.

DiffEdit (arXiv 2210.11427, DiffEdit: Diffusion-based semantic image editing with mask guidance)
noises the picture several times and compares what two prompts predict. The path of an edit-friendly
inversion has independent noise at every level, and the predictions under the source prompt are
stored, so that only those under the target prompt are asked for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import BadArgument
from .denoise import Callback, Denoise, predict_path
from .edits.window import steps_between
from .maps import NoiseMaps

QUANTILE = 0.99  # of a picture's cells: what counts as a full difference; single cells may lie above
HARDLY = 0.05  # a contrast below which two prompts hardly differ for a picture


def difference(
    target: Denoise,
    maps: NoiseMaps,
    *,
    start: float = 100,
    end: float = 0,
    chunk: int = 8,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> Tensor:
    """How far the prompts are apart in each cell: the mean over the steps of |t(x_i) - p_i|, the
    norm over the channels.

    target      the denoiser under the target prompt, with the guidance of the inversion; p_i are
                the maps' own predictions
    start, end  which steps, t in per cent of the whole schedule, 100 is its noisy end
    chunk, callback          as for ``invert``
    device                   where the model runs

    Returns (B, 1, *S), float32 on the CPU. Raises BadArgument.
    """
    chosen = torch.tensor(steps_between(maps, start, end))
    latents, stored = maps.latents[:-1].cpu()[chosen], maps.predictions.cpu()[chosen]
    predictions = predict_path(target, latents, maps.sigmas[:-1][chosen], device, chunk, callback)
    return (predictions - stored).norm(dim=2, keepdim=True).mean(0).float()


def contrast(amount: Tensor, maps: NoiseMaps) -> Tensor:
    """How much the prompts differ where they differ most, in standard deviations of the picture's
    own predictions: (B,).

    amount  what ``difference`` gives. Where prompts mean the same for the picture this is near 0.
    """
    largest = amount.flatten(1).quantile(QUANTILE, dim=1)
    deviation = maps.predictions.cpu().float().movedim(1, 0).flatten(1).std(1) * maps.predictions.shape[2] ** 0.5
    return largest / deviation.clamp(min=1e-12)


def mask_of(amount: Tensor, *, threshold: float = 0.4, softness: float = 0.4, grow: int = 0) -> Tensor:
    """A mask (B, 1, *S) in [0, 1] from differences (B, 1, *S): smoothed over 3 x 3 cells, measured
    against the picture's own ``QUANTILE``, and cut at ``threshold`` with a ramp of the width
    ``softness``; then ``grow`` cells wider.

    threshold  in (0, 1]: less takes in more of the picture
    softness   0 is a hard edge; at a ramp the edit and the source are blended

    Raises BadArgument.
    """
    if not 0 < threshold <= 1:
        raise BadArgument("threshold", f"threshold must lie in (0, 1]; got {threshold:g}.")
    if softness < 0:
        raise BadArgument("softness", f"softness must be 0 or more; got {softness:g}.")
    if grow < 0:
        raise BadArgument("grow", f"grow must be 0 or more cells; got {grow}.")
    smooth = _planes(amount, lambda planes: F.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False))
    largest = smooth.flatten(1).quantile(QUANTILE, dim=1).clamp(min=1e-12)
    share = smooth / largest.view(-1, *[1] * (smooth.dim() - 1))
    mask = ((share - threshold) / max(softness, 1e-6) + 0.5).clamp(0, 1)
    if grow:
        mask = _planes(mask, lambda planes: F.max_pool2d(planes, 2 * grow + 1, stride=1, padding=grow))
    return mask


def _planes(tensor: Tensor, work) -> Tensor:
    """``work`` on every plane (H, W) of a tensor (B, 1, *S); a video has one for each frame."""
    planes = tensor.reshape(-1, 1, *tensor.shape[-2:])
    return work(planes).view_as(tensor)
