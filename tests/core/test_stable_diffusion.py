"""The adapter for diffusers: parameterisations, guidance, and what it leaves alone. Random
weights, and no picture is judged."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from ddpm_core import Plan, invert, replay
from ddpm_core.checks import BadArgument
from ddpm_core.demo.model import CONTEXT, SCHEDULER, TEXT, build_pipeline, write_tokenizer
from ddpm_core.models.stable_diffusion import Edit, Pipeline, leading_timesteps


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    torch.manual_seed(0)
    pipe = build_pipeline(tmp_path_factory.mktemp("sd"))
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        module.eval()
    return pipe


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory, sd):
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("sdxl")
    write_tokenizer(folder / "tokenizer")
    ends = {
        key: getattr(sd.text_encoder.config, key)
        for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    }
    unet = UNet2DConditionModel(
        sample_size=24,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=2 * TEXT["hidden_size"],
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT["hidden_size"],
    )
    second = CLIPTextModelWithProjection(CLIPTextConfig(projection_dim=TEXT["hidden_size"], **ends, **TEXT))
    parts = {
        "vae": sd.vae,
        "text_encoder": sd.text_encoder,
        "text_encoder_2": second,
        "tokenizer": sd.tokenizer,
        "tokenizer_2": sd.tokenizer,
    }
    return StableDiffusionXLPipeline(
        **parts, unet=unet.eval(), scheduler=DDIMScheduler(**SCHEDULER), add_watermarker=False
    )


X0 = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_prediction_is_the_schedulers_own_estimate(kind, prediction, request):
    """diffusers' DDIM step gives x0_hat (pred_original_sample) for the same output of the UNet."""
    from diffusers import DDIMScheduler

    pipe = copy.copy(request.getfixturevalue(kind))
    pipe.scheduler = DDIMScheduler(**{**SCHEDULER, "prediction_type": prediction})
    model = Pipeline(pipe)
    outputs = []
    hook = pipe.unet.register_forward_hook(lambda module, inputs, output: outputs.append(output.sample))
    t = 501
    sigma = model.sigma_of_timestep[t].expand(2)
    x = X0 + sigma[0].float() * torch.randn(X0.shape, generator=torch.Generator().manual_seed(1))
    x0_hat = model.denoiser("a red star", guidance=2.5)(x, sigma.float())
    hook.remove()
    without, with_prompt = outputs[0].chunk(2)
    pipe.scheduler.set_timesteps(1000)
    vp = 1 / (1 + sigma[0].float() ** 2) ** 0.5
    step = pipe.scheduler.step(without + 2.5 * (with_prompt - without), t, x * vp)
    assert_close(x0_hat, step.pred_original_sample, rtol=1e-4, atol=1e-4)


def test_the_unet_gets_what_the_pipeline_of_diffusers_gives_it(sd):
    """A whole DDIM run of the pipeline's own call, and of ours, from the same noise, to the same
    latent."""
    from diffusers import DDIMScheduler

    from ddpm_core import schedule

    pipe = copy.copy(sd)
    pipe.scheduler = DDIMScheduler(**SCHEDULER)
    model = Pipeline(pipe)
    noise = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(2))
    expected = pipe("a red star", latents=noise, num_inference_steps=5, guidance_scale=4.0, output_type="latent").images
    denoise = model.denoiser("a red star", guidance=4.0)
    sigmas = model.sigmas(5)
    sigmas[-1] = model.sigma_of_timestep[0]  # set_alpha_to_one False
    x = noise.double() * (1 + sigmas[0] ** 2) ** 0.5
    for step in schedule(sigmas, eta=0):
        x = step.mean(x, denoise(x, torch.full((1,), step.sigma)).double(), None)
    assert_close((x / (1 + sigmas[-1] ** 2) ** 0.5).float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_inverted_latent_comes_back(kind, dtype, request):
    pipe = copy.deepcopy(request.getfixturevalue(kind)).to(dtype)
    model = Pipeline(pipe)
    denoise = model.denoiser("a red star", guidance=3.5, negative="a moon")
    maps = invert(denoise, X0, Plan(model.sigmas(10), skip=3), chunk=4)
    assert_close(replay(denoise, maps), X0, rtol=0, atol=1e-5 * X0.abs().max().item())


@pytest.mark.parametrize(("guidance", "branches"), [(3.5, 2), (1.0, 1)])
@pytest.mark.slow
def test_an_edit_of_one_picture_costs_72_calls_and_256_samples(sd, guidance, branches):
    """100 steps, skip 36, chunk 8: the authors' code makes 328 calls. Guidance 1 halves the
    samples."""
    sizes = []
    hook = sd.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    model = Pipeline(sd)
    denoise = model.denoiser("a red star", guidance=guidance)
    replay(denoise, invert(denoise, X0[:1], Plan(model.sigmas(100), skip=36), chunk=8))
    hook.remove()
    assert sizes == [8 * branches] * 8 + [branches] * 64


def test_sdxl_is_told_the_pictures_size(sdxl):
    told = []
    hook = sdxl.unet.register_forward_pre_hook(
        lambda module, inputs, options: told.append(options["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    model = Pipeline(sdxl)
    model.denoiser("a red star", guidance=2.0)(X0, torch.ones(2))
    model.denoiser("a red star", guidance=1.0, size=(512, 640))(X0, torch.ones(2))
    hook.remove()
    assert told[0].tolist() == [[64, 96, 0, 0, 64, 96]] * 4
    assert told[1].tolist() == [[512, 640, 0, 0, 512, 640]] * 2


def test_an_autoencoder_that_overflows_in_float16_stays_in_float32(sd, tmp_path):
    sd.save_pretrained(tmp_path)
    assert sd.vae.config.force_upcast
    loaded = Pipeline.load(tmp_path, dtype=torch.float16)
    assert (loaded.pipe.vae.dtype, loaded.pipe.unet.dtype) == (torch.float32, torch.float16)
    with pytest.raises(ValueError, match="the decoded picture .* must be finite"):
        loaded.decode(torch.full((1, 4, 4, 4), torch.nan))


@pytest.mark.parametrize(("guidance", "branches"), [(3.5, 2), (1.0, 1), (0.0, 1)])
def test_both_branches_run_as_one_batch_and_guidance_1_needs_one(sd, guidance, branches):
    sizes = []
    hook = sd.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    denoise = Pipeline(sd).denoiser("a red star", guidance=guidance)
    denoise(X0, torch.tensor([1.0, 2.0]))
    hook.remove()
    assert sizes == [2 * branches]


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_each_item_of_a_batch_can_have_a_prompt_of_its_own(kind, request):
    model = Pipeline(request.getfixturevalue(kind))
    prompts = ["a red star", "a blue moon on a green background"]
    denoise = model.denoiser(prompts, guidance=2.0, negative="a ring")
    maps = invert(denoise, X0, Plan(model.sigmas(6)), chunk=4)
    for i, prompt in enumerate(prompts):
        alone = model.denoiser(prompt, guidance=2.0, negative="a ring")
        expected = invert(alone, X0[i : i + 1], Plan(model.sigmas(6), seed=i))
        assert_close(maps.residuals[:, i : i + 1], expected.residuals, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="2 prompts need a batch of as many latents, or a multiple; got 3"):
        denoise(torch.randn(3, 4, 8, 8), torch.ones(3))


def test_guidance_is_linear_between_the_negative_and_the_prompt(sd):
    model, sigma = Pipeline(sd), torch.tensor([1.0, 3.0])
    no, yes, more = (model.denoiser("a red star", negative="a moon", guidance=g)(X0, sigma) for g in (0.0, 1.0, 2.0))
    assert_close(more, 2 * yes - no, rtol=1e-4, atol=1e-4)
    assert (yes - no).abs().max() > 1e-4
    swapped = model.denoiser("a moon", negative="a red star", guidance=1.0)(X0, sigma)
    assert_close(swapped, no, rtol=1e-5, atol=1e-5)


def test_the_lent_pipeline_is_left_as_it_was(sd):
    sd.scheduler.set_timesteps(7)
    before = copy.deepcopy(vars(sd.scheduler))
    processors = dict(sd.unet.attn_processors)
    weights = {key: value.clone() for key, value in sd.unet.state_dict().items()}
    model = Pipeline(sd)
    maps = invert(model.denoiser("a red star", guidance=2.0), X0, Plan(model.sigmas(4)))
    model.decode(replay(model.denoiser("a moon", guidance=2.0), maps))
    after = vars(sd.scheduler)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key], key
    assert sd.unet.attn_processors == processors
    assert all(torch.equal(value, weights[key]) for key, value in sd.unet.state_dict().items())


@pytest.mark.slow
def test_the_samplers_own_work_is_under_5_per_cent_of_the_time(sd):
    import time

    model, inside = Pipeline(sd), 0.0
    denoise = model.denoiser("a red star", guidance=3.5)

    def timed(x, sigma):
        nonlocal inside
        start = time.perf_counter()
        x0_hat = denoise(x, sigma)
        inside += time.perf_counter() - start
        return x0_hat

    x0 = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    sigmas = model.sigmas(50)
    start = time.perf_counter()
    replay(timed, invert(timed, x0, Plan(sigmas, skip=18)))
    total = time.perf_counter() - start
    assert (total - inside) / total < 0.05


def test_the_schedule_is_the_papers(sd):
    """Leading spacing with offset 1: 100 steps are timesteps 991, 981, ... 1, then the clean
    picture."""
    model = Pipeline(sd)
    sigmas = model.sigmas(100)
    assert_close(sigmas[:-1], model.sigma_of_timestep[torch.arange(991, 0, -10)])
    assert sigmas[-1] == 0
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=rf"steps must lie in \[1, 1000\]; got {steps}"):
            model.sigmas(steps)


def test_latents_are_scaled_and_pictures_come_back_in_range(sd):
    model = Pipeline(sd)
    pictures = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    latents = model.encode(pictures)
    assert latents.shape == (2, 4, 4, 6)
    with torch.no_grad():
        assert_close(latents, sd.vae.encode(pictures * 2 - 1).latent_dist.mode() * sd.vae.config.scaling_factor)
        expected = (sd.vae.decode(latents / sd.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    assert_close(model.decode(latents), expected)
    with pytest.raises(ValueError, match=r"multiples of 8; got \(1, 3, 30, 32\)"):
        model.encode(torch.rand(1, 3, 30, 32))


def test_the_autoencoders_shift_is_taken_off_and_put_back(sd):
    """diffusers: latents = (mode - shift) scaling, pictures from latents / scaling + shift."""
    pipe = copy.copy(sd)
    pipe.vae = copy.deepcopy(sd.vae)
    pipe.vae.register_to_config(shift_factor=0.3, scaling_factor=0.5)
    pictures = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    latents = Pipeline(pipe).encode(pictures)
    with torch.no_grad():
        mode = sd.vae.encode(pictures * 2 - 1).latent_dist.mode()
        expected = (sd.vae.decode(mode).sample / 2 + 0.5).clamp(0, 1)
    assert_close(latents, (mode - 0.3) * 0.5)
    assert_close(Pipeline(pipe).decode(latents), expected, rtol=1e-4, atol=1e-5)


def test_a_zero_terminal_snr_is_a_great_but_finite_noise_level(sd):
    from diffusers import DDIMScheduler

    pipe = copy.copy(sd)
    settings = {**SCHEDULER, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    pipe.scheduler = DDIMScheduler(**settings)
    assert pipe.scheduler.alphas_cumprod[-1] == 0
    model = Pipeline(pipe)
    assert model.sigma_of_timestep[-1].item() == pytest.approx(2**12, rel=1e-6)
    assert (model.sigma_of_timestep.diff() > 0).all()
    sigmas = model.sigmas(1000)[[0, 400, 1000]]  # from the very last timestep
    denoise = model.denoiser("a red star", guidance=1.0)
    maps = invert(denoise, X0, Plan(sigmas))
    assert_close(replay(denoise, maps), X0, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "known", "offset", "timesteps"),
    [
        (4, 1000, 1, [751, 501, 251, 1]),
        (3, 1000, 0, [666, 333, 0]),
        (4, 1000, 249, [999, 749, 499, 249]),
        (5, 5, 1, [4, 3, 2, 1, 0]),  # twice the same would be no step
    ],
)
def test_leading_timesteps_go_down_evenly_to_the_offset(steps, known, offset, timesteps):
    assert leading_timesteps(steps, known, offset).tolist() == timesteps


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_saved_folder_loads(kind, request, tmp_path):
    pipe = request.getfixturevalue(kind)
    pipe.save_pretrained(tmp_path)
    loaded = Pipeline.load(tmp_path)
    sigma = torch.tensor([1.0, 3.0])
    expected = Pipeline(pipe).denoiser("a red star", guidance=2.0)(X0, sigma)
    assert_close(loaded.denoiser("a red star", guidance=2.0)(X0, sigma), expected, rtol=1e-5, atol=1e-5)


def test_errors_have_the_name_of_the_argument(sd):
    model = Pipeline(sd)
    denoise = model.denoiser(["a red star", "a moon"], guidance=1.0)
    for argument, call in {
        "steps": lambda: model.sigmas(0),
        "pictures": lambda: model.encode(torch.rand(1, 3, 30, 32)),
        "latents": lambda: model.decode(torch.full((1, 4, 4, 4), torch.nan)),
        "x": lambda: denoise(X0[:1], torch.ones(1)),
    }.items():
        with pytest.raises(BadArgument) as caught:
            call()
        assert caught.value.argument == argument


def test_what_is_no_model_is_refused(tmp_path, sd):
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        Pipeline.load(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"it has no model_index.json"):
        Pipeline.load(tmp_path)
    (tmp_path / "notes.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="must be a diffusers folder or a .safetensors checkpoint"):
        Pipeline.load(tmp_path / "notes.safetensors")
    inpainting = copy.copy(sd)
    inpainting.unet = copy.deepcopy(sd.unet)
    inpainting.unet.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="4 latent channels alone; it takes 9"):
        Pipeline(inpainting)
    with pytest.raises(ValueError, match="got str"):
        Pipeline("model")
    from diffusers import DDIMScheduler

    pipe = copy.copy(sd)
    pipe.scheduler = DDIMScheduler(**{**SCHEDULER, "prediction_type": "sample"})
    with pytest.raises(ValueError, match="its DDIMScheduler says 'sample'"):
        Pipeline(pipe)


def unet_names(name: str) -> str:
    """A UNet tensor of diffusers (one layer a block, three levels) as original checkpoints name
    it."""
    part, _, rest = name.partition(".")
    fixed = {"conv_in": "input_blocks.0.0.", "conv_out": "out.2.", "conv_norm_out": "out.0."}
    if part in fixed:
        return fixed[part] + rest
    if part == "time_embedding":
        return name.replace("time_embedding.linear_1", "time_embed.0").replace(
            "time_embedding.linear_2", "time_embed.2"
        )
    if part == "mid_block":
        for old, new in (("resnets.0", "0"), ("attentions.0", "1"), ("resnets.1", "2")):
            rest = rest.replace(old, new, 1) if rest.startswith(old) else rest
        return inner_names("middle_block." + rest)
    level, kind, index, tail = rest.split(".", 3)
    level = int(level)
    if part == "down_blocks":
        where = {"resnets": (2 * level + 1, 0), "attentions": (2 * level + 1, 1), "downsamplers": (2 * level + 2, 0)}[
            kind
        ]
        return inner_names(
            f"input_blocks.{where[0]}.{where[1]}.{tail.replace('conv.', 'op.') if kind == 'downsamplers' else tail}"
        )
    block = 2 * level + (int(index) if kind != "upsamplers" else 1)
    position = {"resnets": 0, "attentions": 1, "upsamplers": 2 if level < 2 else 1}[kind]
    return inner_names(f"output_blocks.{block}.{position}.{tail}")


def inner_names(name: str) -> str:
    for new, old in (
        ("norm1.", "in_layers.0."),
        ("conv1.", "in_layers.2."),
        ("time_emb_proj.", "emb_layers.1."),
        ("norm2.", "out_layers.0."),
        ("conv2.", "out_layers.3."),
        ("conv_shortcut.", "skip_connection."),
    ):
        name = name if "transformer_blocks" in name else name.replace(f".{new}", f".{old}")
    return name


def vae_names(name: str) -> str:
    """An autoencoder tensor of diffusers (one layer a block, four levels) as original
    checkpoints name it."""
    for new, old in (
        ("conv_norm_out", "norm_out"),
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
        ("conv_shortcut", "nin_shortcut"),
    ):
        name = name.replace(new, old)
    for level in range(4):
        name = name.replace(f"down_blocks.{level}.resnets.", f"down.{level}.block.").replace(
            f"down_blocks.{level}.downsamplers.0", f"down.{level}.downsample"
        )
        name = name.replace(f"up_blocks.{level}.resnets.", f"up.{3 - level}.block.").replace(
            f"up_blocks.{level}.upsamplers.0", f"up.{3 - level}.upsample"
        )
    return name


def test_a_single_file_checkpoint_loads_offline(sd, tmp_path):
    """Original names in one .safetensors file; the configuration comes from a folder, as a
    machine without a connection has it."""
    folder = tmp_path / "config"
    sd.save_pretrained(folder)
    tensors = {f"model.diffusion_model.{unet_names(key)}": value for key, value in sd.unet.state_dict().items()}
    for key, value in sd.vae.state_dict().items():
        square = ".attentions." in key and value.dim() == 2
        tensors[f"first_stage_model.{vae_names(key)}"] = value[..., None, None] if square else value
    for key, value in sd.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    assert len(tensors) == sum(len(part.state_dict()) for part in (sd.unet, sd.vae, sd.text_encoder))
    file = tmp_path / "model.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    loaded = Pipeline.load(file, config=folder)
    sigma = torch.tensor([1.0, 3.0])
    expected = Pipeline(sd).denoiser("a red star", guidance=2.0)(X0, sigma)
    assert_close(loaded.denoiser("a red star", guidance=2.0)(X0, sigma), expected, rtol=1e-5, atol=1e-5)
    assert_close(loaded.decode(X0), Pipeline(sd).decode(X0), rtol=1e-5, atol=1e-5)


def test_a_file_that_is_no_checkpoint_is_not_looked_for_on_the_hub(tmp_path):
    save_file({"latents": torch.ones(2)}, tmp_path / "maps.safetensors")
    with pytest.raises(ValueError, match="must be a whole checkpoint.*model.diffusion_model; it has 1 others, such as"):
        Pipeline.load(tmp_path / "maps.safetensors")


def test_the_demo_models_words_are_single_tokens(sd):
    from ddpm_core.demo.scenes import caption, random_scenes

    for scene in random_scenes(50, seed=3):
        words = caption(scene)
        assert len(sd.tokenizer(words).input_ids) == len(words.split()) + 2 <= CONTEXT
    assert len(sd.tokenizer("crimson").input_ids) > 3


@pytest.mark.parametrize("prompt", ["a red star", "a star of crimson and of vermilion too"])
def test_every_token_of_a_prompt_belongs_to_a_word_or_has_a_role(sd, prompt):
    """Also where the context ends within a word."""
    tokens = Pipeline(sd).tokens(prompt)
    places = [place for _, at in tokens.words for place in at]
    assert sorted([*places, *tokens.start, *tokens.end, *tokens.padding]) == list(range(CONTEXT))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize(("w0", "rows"), [(1.0, 2), (3.5, 3)])
def test_guidance_from_the_source_is_the_rule_on_single_prompts_in_one_batch(kind, w0, rows, request):
    model = Pipeline(request.getfixturevalue(kind))
    u, s, t = (model.denoiser(words, guidance=1.0) for words in ("a ring", "a red star", "a green star"))
    options = {"guidance": 4.0, "source_guidance": w0, "negative": "a ring"}
    ours = model.denoiser_from_source("a red star", "a green star", **options)
    x, sigma = 3 * X0.double(), torch.full((2,), 2.5, dtype=torch.float64)
    expected = u(x, sigma) + w0 * (s(x, sigma) - u(x, sigma)) + 4 * (t(x, sigma) - s(x, sigma))
    sizes = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    assert_close(ours(x, sigma), expected, rtol=1e-4, atol=1e-4)
    hook.remove()
    assert sizes == [rows * 2]


@pytest.mark.parametrize(("w0", "rows"), [(1.0, 3), (3.5, 4)])
def test_edits_at_once_are_one_row_each_and_act_in_their_masks(sd, w0, rows):
    model, left = Pipeline(sd), torch.zeros(1, 1, *X0.shape[2:])
    left[..., :4] = 1
    u, s, t, o = (model.denoiser(words, guidance=1.0) for words in ("a ring", "a red star", "a green star", "a moon"))
    edits = [Edit("a green star", 4.0, left), Edit("a moon", -2.0)]
    ours = model.denoiser_of_edits("a red star", edits, source_guidance=w0, negative="a ring")
    x, sigma = 3 * X0.double(), torch.full((2,), 2.5, dtype=torch.float64)
    u, s, t, o = (ask(x, sigma) for ask in (u, s, t, o))
    sizes = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    assert_close(ours(x, sigma), u + w0 * (s - u) + 4 * left * (t - s) - 2 * (o - s), rtol=1e-4, atol=1e-4)
    hook.remove()
    assert sizes == [rows * 2]


@pytest.mark.parametrize("w0", [0.0, 1.0, 3.5])
def test_guidance_from_the_source_to_itself_gives_the_picture_back(sd, w0):
    model = Pipeline(sd)
    maps = invert(model.denoiser("a red star", guidance=w0), X0, Plan(model.sigmas(6)))
    options = {"guidance": 5.0, "source_guidance": w0}
    same, other = (model.denoiser_from_source("a red star", to, **options) for to in ("a red star", "a moon"))
    bound = 1e-4 * X0.abs().max().item()
    assert_close(replay(same, maps), X0, rtol=0, atol=bound)
    assert (replay(other, maps) - X0).abs().max() > 100 * bound
