"""EditFriendlyInvert: a picture's latent to its edit-friendly noise maps (arXiv 2304.06140, An
Edit Friendly DDPM Noise Space: Inversion and Manipulations, section 3.2)."""

from __future__ import annotations

import dataclasses

import comfy.sample
import comfy.samplers
import torch
from comfy_api.latest import io

from ..ddpm_core import NoiseMaps, Plan, Process, Solver
from ..ddpm_core.inversions import choice
from ..ddpm_core.inversions.turbo import CAP
from ..ddpm_core.plan import FAST, PAPER
from .host.batching import timesteps_a_call, warn_of_memory
from .host.fingerprint import fingerprint_of
from .host.guidance import guidance_of
from .host.guided import Running, make_guider, run
from .host.masks import noise_mask
from .host.wires import (
    NOISE_MAPS_TOOLTIP,
    NOT_FINITE,
    NodeError,
    NoiseMapsType,
    Socket,
    known,
    naming,
    process_of,
    seed_input,
)

# SDEdit needs no node: it is KSampler with denoise below 1.
INVERSIONS = [method for method in choice.INVERSIONS if method != "sdedit"]
ALIASES = ["DDPM inversion", "DDIM inversion", "image inversion", "unsampler", "unsample", "real image editing"]
ALIASES += ["FlowEdit", "LEDITS", "LEDITS++", "CycleDiffusion", "TurboEdit"]


class EditFriendlyInvert(io.ComfyNode):
    """Edit-friendly inversion (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section
    3.2). To compare: native is CycleDiffusion (arXiv 2210.05559, Unifying Diffusion Models'
    Latent Space), ddim the inversion of arXiv 2010.02502 (Denoising Diffusion Implicit Models)."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EditFriendlyInvert",
            display_name="Edit-Friendly Invert",
            category="edit-friendly noise maps",
            description="Invert a picture into noise maps that give it back exactly. Edit them, or sample along them "
            "with another prompt (Noise Map Edit).",
            **known(io.Schema, search_aliases=ALIASES),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The diffusion model; LoRAs and patches on it are used. Use the same one for the edit.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="A prompt that says what the picture shows now. May be empty."
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt; usually empty."),
                _latent_input(),
                _steps_input(),
                _skip_input(PAPER.skip),
                _cfg_input(),
                _eta_input(),
                _solver_input(),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.SCHEDULER_NAMES,
                    default="ddim_uniform",
                    tooltip="How the noise levels are spaced. ddim_uniform is the paper's even spacing.",
                ),
                _seed_input(),
                _chunk_input(),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Noise levels of your own, high to low; they replace steps and scheduler.",
                ),
                _inversion_input(),
                _cap_input(),
            ],
            outputs=[_maps_output()],
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
        cap=CAP,
        **kwargs,
    ) -> io.NodeOutput:
        source = "scheduler" if sigmas is None else "sigmas"
        sigmas = _spaced(model, scheduler, steps) if sigmas is None else sigmas
        with naming("EditFriendlyInvert", "model", **_sockets("model", source)):
            settings = {"skip": skip, "eta": eta, "solver": Solver(solver), "seed": seed}
            process = process_of("EditFriendlyInvert", "model", model)
            plan = _plan(process, sigmas, guidance=cfg, **settings)
            guider = make_guider(model, positive, negative, cfg)
            return io.NodeOutput(_invert("EditFriendlyInvert", guider, latent, plan, inversion, chunk, cap))


class EditFriendlyInvertAdvanced(io.ComfyNode):
    """Edit-friendly inversion (arXiv 2304.06140, An Edit Friendly DDPM Noise Space, section 3.2)
    by any guider."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EditFriendlyInvertAdvanced",
            display_name="Edit-Friendly Invert (Advanced)",
            category="edit-friendly noise maps",
            description="The same inversion with a guider and noise levels of your own, from the nodes around "
            "SamplerCustomAdvanced.",
            **known(io.Schema, search_aliases=ALIASES),
            inputs=[
                io.Guider.Input(
                    "guider",
                    tooltip="The model with a prompt that says what the picture shows now, and its guidance. "
                    f"Paper: {PAPER.guidance_source:g}; 1 is twice as fast.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="The noise levels of the whole schedule, high to low, for instance from BasicScheduler. "
                    "Leave out steps with skip, not with denoise.",
                ),
                _latent_input(),
                _skip_input(0),
                _eta_input(),
                _solver_input(),
                _seed_input(),
                _chunk_input(),
                _inversion_input(),
                _cap_input(),
            ],
            outputs=[_maps_output()],
        )

    @classmethod
    def execute(
        cls, guider, sigmas, latent, skip, eta, solver, seed, chunk, inversion=INVERSIONS[0], cap=CAP, **kwargs
    ) -> io.NodeOutput:
        with naming("EditFriendlyInvertAdvanced", "guider", **_sockets("guider", "sigmas")):
            settings = {"skip": skip, "eta": eta, "solver": Solver(solver), "seed": seed}
            process = process_of("EditFriendlyInvertAdvanced", "guider", guider.model_patcher)
            plan = _plan(process, sigmas, guidance=guidance_of(guider), **settings)
            return io.NodeOutput(_invert("EditFriendlyInvertAdvanced", guider, latent, plan, inversion, chunk, cap))


def _sockets(model: str, sigmas: str) -> dict[str, Socket]:
    """Where the core's arguments come in; ``model`` is the socket that the model comes in at,
    ``sigmas`` the one of the noise levels."""
    return {
        "denoise": Socket(model, NOT_FINITE),
        "x0": Socket("latent", "Look at what encodes the picture: VAEs in half precision can overflow."),
        "mask": Socket("latent", "Look at what makes its noise mask."),
        "sigmas": Socket(sigmas, "Give noise levels from high to low, in the model's range."),
        "skip": Socket("skip", "Lower skip, or raise steps."),
        "method": Socket("inversion"),
        **{name: Socket(name) for name in ("eta", "seed", "chunk", "cap")},
    }


def _spaced(model, scheduler: str, steps: int) -> torch.Tensor:
    """Some schedulers (ddim_uniform) give more noise levels than asked for; the paper's schedule
    is their last ones."""
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)[-(steps + 1) :]


def _plan(process: Process, sigmas: torch.Tensor, **settings) -> Plan:
    levels = sigmas.double().tolist()
    if process is Process.FLOW and levels and 1 < levels[0] < 1.001:
        levels[0] = 1.0  # some flow models' greatest sigma is above 1 by rounding
    return Plan(levels, process=process, **settings)


def _invert(node: str, guider, latent: dict, plan: Plan, inversion: str, chunk: int, cap: float) -> NoiseMaps:
    """The noise maps of a LATENT under a guider."""
    model = guider.model_patcher
    if getattr(latent["samples"], "is_nested", False):
        problem = "it holds several latents in one (a video and its sound?), and noise maps are of one."
        raise NodeError(node, "latent", problem, "Use a model for pictures or for video alone.")
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    _check_latent(node, model, samples)
    mask = latent.get("noise_mask")
    mask = None if mask is None else noise_mask(mask, samples.shape)
    warn_of_memory(node, len(plan.steps), samples.shape)

    def work(running: Running) -> NoiseMaps:
        settings = {"chunk": timesteps_a_call(guider, running.latent, chunk), "cap": cap}
        settings |= {"mask": mask, "callback": running.report}
        return choice.invert_by(inversion, running.denoise, running.latent, plan, **settings)

    maps = run(guider, samples, plan.levels[plan.skip :], work, plan.seed, mask)
    return dataclasses.replace(maps, model=fingerprint_of(model))


def _check_latent(node: str, model, samples: torch.Tensor) -> None:
    latent_format = model.get_model_object("latent_format")
    channels, dimensions = latent_format.latent_channels, latent_format.latent_dimensions
    if not samples.any():
        raise NodeError(node, "latent", "it is empty (all zeros).", "Connect the latent of a picture, from VAE Encode.")
    if samples.dim() != dimensions + 2 or samples.shape[1] != channels:
        got = f"it has {samples.shape[1]} channels in {samples.dim() - 2} dimensions"
        problem = f"{got} and the model needs {channels} in {dimensions}."
        raise NodeError(node, "latent", problem, "Encode the picture with this model's VAE.")


def _latent_input() -> io.Latent.Input:
    return io.Latent.Input(
        "latent",
        tooltip="The picture, from VAE Encode. A noise mask in it says where an edit may change the picture.",
    )


def _steps_input() -> io.Int.Input:
    return io.Int.Input(
        "steps",
        default=PAPER.steps,
        min=1,
        max=1000,
        tooltip=f"Steps of the whole schedule. Quality (paper): {PAPER.steps}. Fast: {FAST.steps}, with skip "
        f"{FAST.skip}. Above 100, ddim_uniform starts below the top.",
    )


def _skip_input(default: int) -> io.Int.Input:
    return io.Int.Input(
        "skip",
        default=default,
        min=0,
        max=999,
        tooltip="Steps left out at the noisy end; they cost nothing. More keeps more of the picture. "
        f"Paper: {PAPER.skip} of {PAPER.steps}, useful 0 to 40 per cent. "
        "An edit can skip more than the inversion, not less.",
    )


def _cfg_input() -> io.Float.Input:
    return io.Float.Input(
        "cfg",
        default=PAPER.guidance_source,
        min=0.0,
        max=100.0,
        step=0.1,
        tooltip=f"Guidance towards the source prompt. Paper: {PAPER.guidance_source:g}. 1 is twice as fast.",
    )


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
        tooltip="first_order is the paper's and edits best. dpmpp_2m_sde reconstructs exactly too, but edits roughly, "
        "most of all with few steps.",
        **known(io.Combo.Input, advanced=True),
    )


def _seed_input() -> io.Int.Input:
    return seed_input(
        "Seed of the maps. Every seed gives the picture back exactly; edits differ a little from seed to seed."
    )


def _chunk_input() -> io.Int.Input:
    return io.Int.Input(
        "chunk",
        default=0,
        min=0,
        max=64,
        tooltip="Timesteps evaluated in one batch: more is faster and takes more memory. "
        "0 chooses what fits; running out of memory halves it.",
        **known(io.Int.Input, advanced=True),
    )


def _inversion_input() -> io.Combo.Input:
    return io.Combo.Input(
        "inversion",
        options=INVERSIONS,
        default=INVERSIONS[0],
        optional=True,  # EditFriendlyInvert had prompts before it had this
        tooltip="edit-friendly is the paper's. The others are there to compare with: native walks the path that "
        "sampling would have walked (CycleDiffusion): fewer edits succeed where as much is kept; ddim has no noise "
        "maps: eta is 0 and the solver first_order whatever the widgets say, and the picture comes back only nearly. "
        "turbo is for few-step models (SDXL-Turbo, SD-Turbo), as TurboEdit has it: steps 5, skip 1, cfg 1, scheduler "
        "simple, and in the edit the source prompt at source and cfg 1.5. "
        "SDEdit is what the stock KSampler does with denoise below 1.",
    )


def _cap_input() -> io.Float.Input:
    return io.Float.Input(
        "cap",
        default=CAP,
        min=0.0,
        max=1000.0,
        step=0.5,
        optional=True,
        tooltip="For the inversion turbo alone: the most that the last step may hold of the picture, as a norm at 512 "
        f"pixels (other sizes: scaled). TurboEdit: {CAP:g}. Less leaves fewer traces of the source in an edit; 0 is "
        "no cap, and gives the picture back exactly.",
        **known(io.Float.Input, advanced=True),
    )


def _maps_output() -> NoiseMapsType.Output:
    return NoiseMapsType.Output(display_name="noise_maps", tooltip=NOISE_MAPS_TOOLTIP)


NODES = [EditFriendlyInvert, EditFriendlyInvertAdvanced]
