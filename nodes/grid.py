"""EditGrid: one inversion edited at several skips and guidance scales, as one labelled sheet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from comfy_api.latest import io
from torch import Tensor

from ..ddpm_core import NoiseMaps, replay_several
from ..ddpm_core.edits.faithful import faithful
from ..ddpm_core.measure.pictures import from_image, labelled_grid
from ..ddpm_core.plan import DEMO, PAPER
from .edit import edit_guider, sample_along
from .host.batching import automatic_chunk, one_timestep_a_call
from .host.guidance import ScaledGuider, scaled_guider
from .host.guided import Running, on_wires, progress, run
from .host.wires import (
    NOISE_MAPS_TOOLTIP,
    NOT_FINITE,
    NodeError,
    NoiseMapsType,
    Socket,
    check_fits,
    known,
    maps_latent,
    naming,
)


class EditGrid(io.ComfyNode):
    """Skip and guidance side by side (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section
    4: the two settings that balance keeping and changing)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EditGrid",
            display_name="Edit Grid",
            category="edit-friendly noise maps",
            description="Edit one inversion at several values of skip and cfg, and lay the edits out as one labelled "
            "sheet. Choose the panel that you like, and give its values to Noise Map Edit: the same picture comes out.",
            **known(io.Schema, search_aliases=["XY plot", "compare settings", "parameter sweep", "contact sheet"]),
            inputs=[
                io.Model.Input("model", tooltip="The model that the picture was inverted with."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="A prompt that says what the picture shall show: the source prompt with as few words "
                    "changed as possible.",
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt; usually the one of the inversion."),
                NoiseMapsType.Input(
                    "noise_maps", tooltip=f"{NOISE_MAPS_TOOLTIP} A batch of pictures gives a sheet for each."
                ),
                io.Vae.Input("vae", tooltip="The VAE that encoded the picture."),
                io.String.Input(
                    "skips",
                    default="36, 42, 48",
                    tooltip="The rows: steps left out at the noisy end, counted on the whole schedule, with commas "
                    "between them. Whole numbers from the skip of the inversion to one less than its steps. More keeps "
                    f"more of the picture. Paper: {PAPER.skip} of {PAPER.steps}, useful 0 to 40 per cent.",
                ),
                io.String.Input(
                    "cfgs",
                    default="7, 11, 15",
                    tooltip="The columns: guidance towards the target prompt, with commas between them, 0 to 100. More "
                    f"changes more. Paper: {PAPER.guidance_target:g}, useful 7 to 18. "
                    f"The demo model likes {DEMO.guidance_target:g}.",
                ),
                io.Int.Input(
                    "side",
                    default=256,
                    min=128,
                    max=1024,
                    step=8,
                    tooltip="Pixels a side of a panel of the sheet, 128 to 1024.",
                    **known(io.Int.Input, advanced=True),
                ),
                io.Conditioning.Input(
                    "source",
                    optional=True,
                    tooltip="The prompt of the inversion, as for Noise Map Edit: connected, every cfg leads from it to "
                    "the target. Useful cfgs: 2 to 7.5.",
                ),
                io.Float.Input(
                    "faithfulness",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    optional=True,
                    tooltip="A pull of every step towards the source, as for Noise Map Edit: 0 is none, 0.01 as in "
                    "FlowAlign.",
                    **known(io.Float.Input, advanced=True),
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        noise_maps,
        vae,
        skips,
        cfgs,
        side,
        source=None,
        faithfulness=0.0,
        **kwargs,
    ) -> io.NodeOutput:
        check_fits("EditGrid", noise_maps, model)
        rows = _numbers("skips", skips, int, noise_maps.skipped, noise_maps.total_steps - 1)
        columns = _numbers("cfgs", cfgs, float, 0, 100)
        cells = [(skip, cfg) for skip in rows for cfg in columns]
        with naming("EditGrid", "model", denoise=Socket("model", NOT_FINITE), strength=Socket("faithfulness")):
            maps = faithful(noise_maps, faithfulness) if faithfulness else noise_maps
            guiders = [edit_guider("EditGrid", maps, model, positive, negative, cfg, source) for _, cfg in cells]
            several = [maps.skip(skip) for skip, _ in cells]
            if source is not None or one_timestep_a_call(guiders[0], maps.latents.shape[1]):
                latents = _one_by_one(model, several, guiders)
            else:
                latents = _together(model, several, scaled_guider(model, positive, negative), [cfg for _, cfg in cells])
        edits = torch.stack([_decode(vae, latent) for latent in latents], dim=1)  # (N, cells, H, W, 3)
        labels = [f"skip {skip}, cfg {cfg:g}" for skip, cfg in cells]
        sources = _decode(vae, maps_latent(noise_maps, model))
        sheets = [_sheet(source, panels, labels, len(columns), side) for source, panels in zip(sources, edits)]
        return io.NodeOutput(torch.stack(sheets), edits.flatten(0, 1))


def _outputs() -> list[io.Image.Output]:
    return [
        io.Image.Output(
            id="grid",
            display_name="grid",
            tooltip="The sheet: the source as the VAE gives it back, then a row for each skip and a column for each "
            "cfg.",
        ),
        io.Image.Output(
            id="pictures",
            display_name="pictures",
            tooltip="The edits in full size as a batch, row by row; of a batch of pictures, sheet by sheet.",
        ),
    ]


def _numbers(socket: str, text: str, kind: type, low: float, high: float) -> list:
    """The numbers of a comma-separated text, each in [low, high]: all of them are looked at before
    the first edit."""
    rule = f"{'whole numbers' if kind is int else 'numbers'} from {low} to {high} with commas between them"
    advice = [3, 7, 15]  # the demo model's, and the ends of the paper's useful range
    if socket == "skips":
        advice = dict.fromkeys(low + round(share * (high - low)) for share in (0, 0.2, 0.4))
    remedy = f"Write for instance {', '.join(map(str, advice))}."
    if socket == "skips" and low:
        remedy += " A lower skip on Edit-Friendly Invert allows lower ones."
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise NodeError("EditGrid", socket, f"it must hold {rule}; got {text!r}.", remedy) from error
    for number in numbers:
        if not low <= number <= high:
            raise NodeError("EditGrid", socket, f"it must hold {rule} for these maps; got {number:g}.", remedy)
    return numbers


def _one_by_one(model, several: list[NoiseMaps], guiders: list) -> list[Tensor]:
    """The edits as on LATENT wires, each in a run of its own."""
    report, done, latents = progress(model, sum(len(maps.residuals) for maps in several)), 0, []
    for maps, guider in zip(several, guiders):
        latents.append(sample_along(maps, guider, _from(report, done)))
        done += len(maps.residuals)
    return latents


def _together(model, several: list[NoiseMaps], guider: ScaledGuider, cfgs: list[float]) -> list[Tensor]:
    """The same in common calls of the model, as many in each as the memory takes."""
    report, steps = progress(model, sum(len(maps.residuals) for maps in several)), itertools.count()
    first = max(several, key=lambda maps: len(maps.residuals))

    def work(running: Running) -> list[Tensor]:
        def denoise(x: Tensor, sigma: Tensor, which: Sequence[int]) -> Tensor:
            scales = x.new_tensor([cfgs[i] for i in which]).repeat_interleave(len(x) // len(which))
            guider.scales = scales.view(-1, *[1] * (x.dim() - 1))
            return running.denoise(x, sigma)

        def told(index: int, x0_hat: Tensor, x: Tensor) -> None:
            report(next(steps), x0_hat.float(), x.float(), None)

        latent = running.latent
        chunk = automatic_chunk(guider.inner_model, latent.shape, latent.device)
        return replay_several(denoise, several, chunk=chunk, device=latent.device, callback=told)

    edits = run(guider, maps_latent(first, model), first.sigmas, work, first.seed, first.mask, report)
    return [on_wires(edit, model) for edit in edits]


def _from(report, done: int):
    """A sampler's callback that goes on in a bar where ``done`` steps have been."""
    return lambda index, x0_hat, x, total: report(done + index, x0_hat, x, None)


def _decode(vae, latent: Tensor) -> Tensor:
    """Pictures (N, H, W, 3); the frames of a video are pictures too."""
    pictures = vae.decode(latent)
    return pictures.reshape(-1, *pictures.shape[-3:])[..., :3]


def _sheet(source: Tensor, panels: Tensor, labels: list[str], columns: int, side: int) -> Tensor:
    """(H, W, 3): the source above the panels (cells, H, W, 3)."""
    cells = list(zip(labels, panels.movedim(-1, 1)))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    sheet = labelled_grid([[("source", source.movedim(-1, 0))], *rows], side)
    return from_image(sheet).movedim(0, -1)


NODES = [EditGrid]
