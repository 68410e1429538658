"""What other packs and users bring into a workflow: patches, guiders, lists, small ControlNets."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import comfy.samplers
import torch


class TestLines:
    """A list of texts, one a line: the nodes behind it run once for each."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"text": ("STRING", {"multiline": True})}})
    RETURN_TYPES, OUTPUT_IS_LIST, FUNCTION, CATEGORY = ("STRING",), (True,), "run", "tests"

    def run(self, text):
        return (text.splitlines(),)


class TestSigmas:
    """Noise levels as someone writes them by hand."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"text": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("SIGMAS",), "run", "tests"

    def run(self, text):
        return (torch.tensor([float(word) for word in text.split(",")]),)


class TestControlNet:
    """A ControlNet of random weights that fits the model's UNet."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONTROL_NET",), "run", "tests"

    def run(self, model):
        config = {**model.model.model_config.unet_config, "hint_channels": 3}
        net = comfy.cldm.cldm.ControlNet(**config, operations=comfy.ops.manual_cast)
        generator = torch.Generator().manual_seed(0)
        for name, weight in net.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5, generator=generator)
            else:
                torch.nn.init.constant_(weight, float(name.endswith("weight")))
        return (comfy.controlnet.ControlNet(net, load_device=comfy.model_management.get_torch_device()),)


def patched_model(run):
    """A node class that gives a clone of the model, patched by run(model)."""

    class Patch:
        INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
        RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

        def run(self, model):
            model = model.clone()
            run(model)
            return (model,)

    return Patch


def guide_by_the_first_timestep(model):
    """Guidance that is stronger above a noise level, and looks at the first item only, as many
    packs do."""

    def guided(args):
        scale = args["cond_scale"] * (2 if args["timestep"][0] > 1.5 else 1)
        return args["uncond"] + scale * (args["cond"] - args["uncond"])

    model.set_model_sampler_cfg_function(guided)


def wrap_the_unet(model):
    """A wrapper around the UNet that looks at the first timestep only."""

    def wrapped(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"]) * (0.8 if args["timestep"][0] > 1.5 else 1)

    model.set_model_unet_function_wrapper(wrapped)


class FirstTimestepGuider(comfy.samplers.CFGGuider):
    """A guider of one's own, with a rule that looks at the first timestep only."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        return super().predict_noise(x, timestep, model_options or {}, seed) * (0.8 if timestep[0] > 1.5 else 1)


class TestGuider:
    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "model": ("MODEL",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "cfg": ("FLOAT", {"default": 3.5}),
            }
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY = ("GUIDER",), "run", "tests"

    def run(self, model, positive, negative, cfg):
        guider = FirstTimestepGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return (guider,)


class TestRecordCalls:
    """The model, whose calls are counted until TestShowCalls."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "CALLS"), "run", "tests"
    IS_CHANGED = classmethod(lambda cls, model: float("nan"))

    def run(self, model):
        sizes = []
        hook = model.model.diffusion_model.register_forward_pre_hook(
            lambda module, inputs: sizes.append(len(inputs[0]))
        )
        return (model, (sizes, hook))


class TestShowCalls:
    """How many samples each call of the model had, up to the time when the maps were there."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"calls": ("CALLS",), "noise_maps": ("NOISE_MAPS",)}})
    RETURN_TYPES, OUTPUT_NODE, FUNCTION, CATEGORY = (), True, "run", "tests"

    def run(self, calls, noise_maps):
        sizes, hook = calls
        hook.remove()
        return {"ui": {"text": [str(size) for size in sizes]}}


NODES = {
    "TestLines": TestLines,
    "TestSigmas": TestSigmas,
    "TestControlNet": TestControlNet,
    "TestCfgFunction": patched_model(guide_by_the_first_timestep),
    "TestUnetWrapper": patched_model(wrap_the_unet),
    "TestGuider": TestGuider,
    "TestRecordCalls": TestRecordCalls,
    "TestShowCalls": TestShowCalls,
}
