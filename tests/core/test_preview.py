"""The demo model's preview decoder gives the colours of what a latent shows."""

import pytest
import torch

from ddpm_core.demo.preview import ENLARGED, _examples, decoder, fit, load


def test_a_fit_comes_nearer_and_repeats():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(32, 4, 6, 6, generator=generator)
    pictures = latents[:, :3].tanh().repeat_interleave(ENLARGED, 2).repeat_interleave(ENLARGED, 3)
    one, other = (fit(latents, pictures, steps=200) for _ in range(2))
    assert (one(latents) == other(latents)).all()
    assert (one(latents) - pictures).abs().mean() < 0.4 * (decoder()(latents) - pictures).abs().mean()


@pytest.mark.slow
def test_the_stored_decoder_fits_the_stored_autoencoder():
    latents, pictures = _examples(6, seed=3)
    assert (load()(latents) - pictures).abs().mean() < 0.15, "python -m ddpm_core.demo.preview fits it anew"
