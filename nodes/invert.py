"""EditFriendlyInvert: a picture's latent to its edit-friendly noise maps (paper section 3.2)."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import torch
from comfy_api.latest import io

from ..ddpm_core import NoiseMaps, Process, Solver, schedule
from ..ddpm_core.checks import check_finite
from ..ddpm_core.inversions.choice import INVERSIONS as ALL_INVERSIONS
from ..ddpm_core.inversions.choice import invert_by
from .host.guided import (
    NOISE_MAPS_TOOLTIP,
    GuidedRun,
    NodeError,
    NoiseMapsType,
    Running,
    automatic_chunk,
    make_guider,
    naming,
    noise_mask,
    one_timestep_a_call,
    process_of,
    run,
    seed_input,
    warn_of_memory,
)

NODE, ADVANCED = "EditFriendlyInvert", "EditFriendlyInvertAdvanced"
LATENT = "The picture, from VAE Encode. A noise mask in it says where an edit may change the picture."
SKIP = (
    "Steps left out at the noisy end; they cost nothing. More keeps more of the picture. Paper: 36 of 100, useful 0 to 40 per cent. "
    "An edit can skip more than the inversion, not less."
)
SEED = "Seed of the maps. Every seed gives the picture back exactly; edits differ a little from seed to seed."
INVERSIONS = [
    method for method in ALL_INVERSIONS if method != "sdedit"
]  # which needs no node: it is KSampler with denoise below 1


def _eta_input() -> io.Float.Input:
    return io.Float.Input(
        "eta",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="How much noise each step has: 1 is DDPM (paper), 0 is DDIM. Colour edits need more than 0.",
    )


def _solver_input() -> io.Combo.Input:
    return io.Combo.Input(
        "solver",
        options=[solver.value for solver in Solver],
        default=Solver.FIRST_ORDER.value,
        tooltip="first_order is the paper's and edits best. dpmpp_2m_sde reconstructs exactly too, but edits roughly, most of all with few steps.",
    )


def _chunk_input() -> io.Int.Input:
    return io.Int.Input(
        "chunk",
        default=0,
        min=0,
        max=64,
        tooltip="Timesteps evaluated in one batch: more is faster and takes more memory. 0 chooses what fits; running out of memory halves it.",
    )


def _inversion_input() -> io.Combo.Input:
    return io.Combo.Input(
        "inversion",
        options=INVERSIONS,
        default=INVERSIONS[0],
        optional=True,  # EditFriendlyInvert had prompts before it had this
        tooltip="edit-friendly is the paper's. The others are there to compare with: native walks the path that sampling would have walked "
        "(CycleDiffusion): fewer edits succeed where as much is kept; ddim has no noise maps: eta is 0 and the solver first_order "
        "whatever the widgets say, and "
        "the picture comes back only nearly. SDEdit is what the stock KSampler does with denoise below 1.",
    )


class EditFriendlyInvert(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EditFriendlyInvert",
            display_name="Edit-Friendly Invert",
            category="edit-friendly noise maps",
            description="Invert a picture into noise maps that give it back exactly. Edit them, or sample along them with another prompt (Noise Map Edit).",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The diffusion model; LoRAs and patches on it are used. Use the same one for the edit.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="A prompt that says what the picture shows now. May be empty."
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt; usually empty."),
                io.Latent.Input("latent", tooltip=LATENT),
                io.Int.Input(
                    "steps",
                    default=100,
                    min=1,
                    max=1000,
                    tooltip="Steps of the whole schedule. Quality (paper): 100. Fast: 10, with skip 4. Above 100, ddim_uniform starts below the top.",
                ),
                io.Int.Input("skip", default=36, min=0, max=999, tooltip=SKIP),
                io.Float.Input(
                    "cfg",
                    default=3.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance towards the source prompt. Paper: 3.5. 1 is twice as fast.",
                ),
                _eta_input(),
                _solver_input(),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.SCHEDULER_NAMES,
                    default="ddim_uniform",
                    tooltip="How the noise levels are spaced. ddim_uniform is the paper's even spacing.",
                ),
                seed_input(SEED),
                _chunk_input(),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Noise levels of your own, high to low; they replace steps and scheduler.",
                ),
                _inversion_input(),
            ],
            outputs=[NoiseMapsType.Output(display_name="noise_maps", tooltip=NOISE_MAPS_TOOLTIP)],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        latent,
        steps,
        skip,
        cfg,
        eta,
        solver,
        scheduler,
        seed,
        chunk,
        sigmas=None,
        inversion=INVERSIONS[0],
        **kwargs,
    ) -> io.NodeOutput:
        socket = "scheduler" if sigmas is None else "sigmas"
        levels = _levels(NODE, socket, model, _spaced(model, scheduler, steps) if sigmas is None else sigmas)
        options = {"skip": skip, "eta": eta, "solver": Solver(solver), "seed": seed}
        return io.NodeOutput(
            _invert(
                NODE, "model", make_guider(model, positive, negative, cfg), latent, levels, chunk, inversion, options
            )
        )


class EditFriendlyInvertAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EditFriendlyInvertAdvanced",
            display_name="Edit-Friendly Invert (Advanced)",
            category="edit-friendly noise maps",
            description="The same inversion with a guider and noise levels of your own, from the nodes around SamplerCustomAdvanced.",
            inputs=[
                io.Guider.Input(
                    "guider",
                    tooltip="The model with a prompt that says what the picture shows now, and its guidance. Paper: 3.5; 1 is twice as fast.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="The noise levels of the whole schedule, high to low, for instance from BasicScheduler. "
                    "Leave out steps with skip, not with denoise.",
                ),
                io.Latent.Input("latent", tooltip=LATENT),
                io.Int.Input("skip", default=0, min=0, max=999, tooltip=SKIP),
                _eta_input(),
                _solver_input(),
                seed_input(SEED),
                _chunk_input(),
                _inversion_input(),
            ],
            outputs=[NoiseMapsType.Output(display_name="noise_maps", tooltip=NOISE_MAPS_TOOLTIP)],
        )

    @classmethod
    def execute(
        cls, guider, sigmas, latent, skip, eta, solver, seed, chunk, inversion=INVERSIONS[0], **kwargs
    ) -> io.NodeOutput:
        levels = _levels(ADVANCED, "sigmas", guider.model_patcher, sigmas)
        options = {"skip": skip, "eta": eta, "solver": Solver(solver), "seed": seed}
        return io.NodeOutput(_invert(ADVANCED, "guider", guider, latent, levels, chunk, inversion, options))


def _invert(
    node: str, socket: str, guider, latent: dict, levels: list[float], chunk: int, inversion: str, options: dict
) -> NoiseMaps:
    """The noise maps of a LATENT under a guider; ``socket`` is where the model came in."""
    model, skip = guider.model_patcher, options["skip"]
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    _check(node, model, samples, levels, skip)
    mask = latent.get("noise_mask")
    with naming(node, "latent", "Look at what makes its noise mask."):
        mask = None if mask is None else noise_mask(mask, samples.shape)
    warn_of_memory(node, len(levels) - 1 - skip, samples.shape)
    made = []

    def body(now: Running) -> torch.Tensor:
        per_call = (
            1
            if one_timestep_a_call(guider, len(now.latent))
            else chunk or automatic_chunk(guider.inner_model, now.latent.shape, now.latent.device)
        )
        own = {"process": process_of(model), "chunk": per_call, "mask": mask, "callback": now.report}
        made.append(invert_by(inversion, now.denoise, now.latent, levels, **options, **own))
        return now.latent

    with naming(node, socket):
        run(guider, samples, torch.as_tensor(levels)[skip:], GuidedRun(body), options["seed"], mask)
    return made[0]


def _spaced(model, scheduler: str, steps: int) -> torch.Tensor:
    """Some schedulers (ddim_uniform) give more noise levels than asked for; the paper's schedule is
    their last ones."""
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)[-(steps + 1) :]


def _levels(node: str, socket: str, model, sigmas: torch.Tensor) -> list[float]:
    """The noise levels as doubles, high to low."""
    process = process_of(model)
    levels = sigmas.double().tolist()
    if process is Process.FLOW and levels and 1 < levels[0] < 1.001:
        levels[0] = 1.0  # some flow models' greatest sigma is above 1 by rounding
    with naming(node, socket, "Give noise levels from high to low, in the model's range."):
        schedule(levels, process=process)
    return levels


def _check(node: str, model, samples: torch.Tensor, levels: list[float], skip: int) -> None:
    latent_format = model.get_model_object("latent_format")
    channels, dimensions = latent_format.latent_channels, latent_format.latent_dimensions
    if not samples.any():
        raise NodeError(node, "latent", "it is empty (all zeros).", "Connect the latent of a picture, from VAE Encode.")
    if samples.dim() != dimensions + 2 or samples.shape[1] != channels:
        raise NodeError(
            node,
            "latent",
            f"it has the shape {tuple(samples.shape)} and the model needs {channels} channels in {dimensions} dimensions.",
            "Encode the picture with this model's VAE.",
        )
    with naming(node, "latent", "Look at what encodes the picture: VAEs in half precision can overflow."):
        check_finite(samples, "the latent")
    if skip >= len(levels) - 1:
        raise NodeError(
            node,
            "skip",
            f"it must be less than the {len(levels) - 1} steps of the schedule; got {skip}.",
            "Lower skip, or raise steps.",
        )


NODES = [EditFriendlyInvert, EditFriendlyInvertAdvanced]
