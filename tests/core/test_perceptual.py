"""LPIPS and CLIP: the calls that reach their packages, and what is said where something is
missing."""

import sys
from types import ModuleType

import pytest
import torch

from ddpm_core.measure.perceptual import Unavailable, load_clip, load_lpips

ONE, TWO = torch.rand(2, 1, 3, 40, 48, generator=torch.Generator().manual_seed(0))


class StubLPIPS(torch.nn.Module):
    """The calls that lpips.LPIPS of version 0.1.4 takes: pictures in [-1, 1], a result (1, 1, 1,
    1)."""

    def __init__(self, net, verbose):
        super().__init__()
        assert (net, verbose) == ("alex", False)

    def forward(self, one, other):
        assert -1 <= min(one.min(), other.min()) < -0.9
        assert 0.9 < max(one.max(), other.max()) <= 1
        return (one - other).square().mean().reshape(1, 1, 1, 1)


def stub(monkeypatch, make):
    module = ModuleType("lpips")
    module.LPIPS = make
    monkeypatch.setitem(sys.modules, "lpips", module)


def test_lpips_gets_pictures_between_minus_one_and_one(monkeypatch):
    stub(monkeypatch, StubLPIPS)
    distance = load_lpips()
    assert distance(ONE, ONE) == 0
    assert distance(ONE, TWO) == pytest.approx(4 * (ONE - TWO).square().mean().item(), rel=1e-5)


def test_a_missing_lpips_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(Unavailable, match=r"python -m pip install lpips.*ModuleNotFoundError"):
        load_lpips()


def test_a_torchvision_that_does_not_fit_is_a_missing_lpips(monkeypatch, tmp_path):
    (tmp_path / "lpips.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    with pytest.raises(
        Unavailable, match="a torchvision that fits your torch.*RuntimeError: operator torchvision::nms does not exist"
    ):
        load_lpips()


def test_missing_weights_of_lpips_say_where_they_belong(monkeypatch, tmp_path):
    def offline(**options):
        raise OSError("no connection")

    stub(monkeypatch, offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(Unavailable, match=f"AlexNet's weights.*{tmp_path}.*OSError: no connection"):
        load_lpips()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of a small CLIP of transformers with random weights; its words are the demo
    model's."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    from ddpm_core.demo.model import CONTEXT, write_tokenizer

    folder = tmp_path_factory.mktemp("clip")
    write_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "eos_token_id": tokenizer.eos_token_id,
        **small,
    }
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config={"image_size": 32, "patch_size": 8, **small}, projection_dim=8)
    ).save_pretrained(folder)
    CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer
    ).save_pretrained(folder)
    return folder


def test_the_clip_score_is_100_times_the_cosine_of_picture_and_prompt(clip):
    """Against the model's own logits (without their scale), on inputs prepared by hand: a square
    picture of the model's size needs no scaling."""
    from transformers import CLIPModel, CLIPTokenizer

    picture = (ONE[..., :32, :32] * 255).round() / 255
    mean, std = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]]).view(
        2, 1, 3, 1, 1
    )
    model = CLIPModel.from_pretrained(clip).eval()
    prompts = ["a striped red star on a blue background", "a moon"]
    score = load_clip(str(clip))
    scores = [score(picture, prompt) for prompt in prompts]
    with torch.no_grad():
        tokens = [CLIPTokenizer.from_pretrained(clip)(prompt, return_tensors="pt") for prompt in prompts]
        logits = [model(**t, pixel_values=(picture - mean) / std).logits_per_image.item() for t in tokens]
    assert scores == pytest.approx([100 * x / model.logit_scale.exp().item() for x in logits], rel=1e-4)
    assert abs(scores[0] - scores[1]) > 1e-3


def test_a_prompt_longer_than_the_context_is_cut(clip):
    score = load_clip(str(clip))
    assert score(ONE, "red star " * 20) == pytest.approx(
        score(ONE, "red star " * 7)
    )  # 14 words and the two ends fill it


def test_a_missing_clip_says_what_to_give(tmp_path):
    with pytest.raises(Unavailable, match=rf"needs the model '{tmp_path}': give --clip the folder"):
        load_clip(str(tmp_path))
