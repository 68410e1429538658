"""What a prompt says of the path of noise maps, without any edit."""

from __future__ import annotations

from torch import Tensor

from ...ddpm_core import NoiseMaps
from ...ddpm_core.regions import difference
from .batching import timesteps_a_call
from .guided import Running, run
from .wires import maps_latent


def difference_on(maps: NoiseMaps, guider, *, start: float = 100, end: float = 0) -> Tensor:
    """``regions.difference`` of a guider's prompt, in the guidance of the inversion, to what the
    maps were made with: (B, 1, *S)."""

    def work(running: Running) -> Tensor:
        settings = {"chunk": timesteps_a_call(guider, running.latent, 0), "callback": running.report}
        return difference(running.denoise, maps, start=start, end=end, device=running.latent.device, **settings)

    return run(guider, maps_latent(maps, guider.model_patcher), maps.sigmas, work, maps.seed, maps.mask)
