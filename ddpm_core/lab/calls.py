"""What a UNet is asked for, counted from outside."""

from __future__ import annotations

from torch import nn


class UNetCalls:
    """While entered, counts a UNet's calls: ``sizes`` has the batch items of each, both guidance
    branches counted."""

    def __init__(self, unet: nn.Module):
        self.unet, self.sizes = unet, []

    def __enter__(self):
        self._hooks = [
            self.unet.register_forward_pre_hook(self.before),
            self.unet.register_forward_hook(self.after),
        ]
        return self

    def __exit__(self, *error) -> None:
        for hook in self._hooks:
            hook.remove()

    def before(self, module, inputs) -> None:
        """Called before each call of the UNet."""
        self.sizes.append(len(inputs[0]))

    def after(self, module, inputs, output) -> None:
        """Called after each call of the UNet."""
