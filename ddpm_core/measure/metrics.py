"""How far one picture lies from another; pictures are (B, 3, H, W) in [0, 1]."""

from __future__ import annotations

from torch import Tensor

from ..checks import BadArgument


def psnr(pictures: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB (B,), infinite where nothing differs; ``mask`` (B or 1, 1,
    H, W) in [0, 1] weighs the pixels.

    NaN where the mask is empty. Raises BadArgument for shapes that do not fit.
    """
    _check(pictures, others, mask)
    return -10 * _mean((pictures.double() - others.double()).square(), mask).log10()


def ssim(pictures: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity (B,), 1 where nothing differs; ``mask`` as for ``psnr``.

    Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity;
    Gaussian window of 11 pixels.
    """
    from kornia.metrics import ssim as similarity

    _check(pictures, others, mask)
    return _mean(similarity(pictures.float(), others.float(), window_size=11).double(), mask)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """(B, 3, H, W) averaged over all axes but the batch, weighted by the mask."""
    if mask is None:
        return values.mean((1, 2, 3))
    mask = mask.double()
    return (values.mean(1, keepdim=True) * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))


def _check(pictures: Tensor, others: Tensor, mask: Tensor | None) -> None:
    if pictures.dim() != 4 or pictures.shape[1] != 3 or pictures.shape != others.shape:
        got = f"{tuple(pictures.shape)} and {tuple(others.shape)}"
        raise BadArgument("others", f"Two batches of pictures of one shape (B, 3, H, W) are needed; got {got}.")
    batch, _, *size = pictures.shape
    if mask is not None and tuple(mask.shape) not in ((batch, 1, *size), (1, 1, *size)):
        rule = f"mask must have shape {(batch, 1, *size)} or {(1, 1, *size)}"
        raise BadArgument("mask", f"{rule}; got {tuple(mask.shape)}.")
