"""What other packs and users bring into a workflow: patches, guiders, lists, small ControlNets."""

import comfy.cldm.cldm
import comfy.context_windows
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


class TestScaledSigmas:
    """Noise levels that are all off by a factor."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"sigmas": ("SIGMAS",), "factor": ("FLOAT", {"step": 0.001})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("SIGMAS",), "run", "tests"

    def run(self, sigmas, factor):
        return (sigmas * factor,)


class TestForeignMaps:
    """What another pack sends over wires of the type that ours has."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("NOISE_MAPS",), "run", "tests"

    def run(self):
        return ({"residuals": torch.zeros(1)},)


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


def first_scale(sigma):
    return 0.8 if sigma[0] > 1.5 else 1


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
        return apply_model(args["input"], args["timestep"], **args["c"]) * first_scale(args["timestep"])

    model.set_model_unet_function_wrapper(wrapped)


def scale_before_guidance(model):
    """A change of both branches before guidance, by the first timestep only."""

    def scaled(args):
        return [out if out is None else out * first_scale(args["timestep"]) for out in args["conds_out"]]

    model.set_model_sampler_pre_cfg_function(scaled)


def replace_the_branches(model):
    """A calculation of both branches of one's own, which looks at the first timestep only."""

    def calculated(args):
        given = (args["model"], args["conds"], args["input"], args["sigma"], args["model_options"])
        outs = comfy.samplers.calc_cond_batch(*given)
        return [out * first_scale(args["sigma"]) for out in outs]

    model.set_model_sampler_calc_cond_batch_function(calculated)


class FirstTimestepContext(comfy.context_windows.ContextHandlerABC):
    """A context window over all items, whose weight is that of the first timestep."""

    def should_use_context(self, model, conds, x_in, timestep, model_options):
        return True

    def get_resized_cond(self, cond_in, x_in, window, device=None):
        return cond_in

    def execute(self, calc_cond_batch, model, conds, x_in, timestep, model_options):
        outs = calc_cond_batch(model, conds, x_in, timestep, model_options)
        return [out * first_scale(timestep) for out in outs]


def window_the_context(model):
    model.model_options["context_handler"] = FirstTimestepContext()


class FirstTimestepGuider(comfy.samplers.CFGGuider):
    """A guider of one's own, with a rule that looks at the first timestep only."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        return super().predict_noise(x, timestep, model_options or {}, seed) * first_scale(timestep)


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
    "TestScaledSigmas": TestScaledSigmas,
    "TestForeignMaps": TestForeignMaps,
    "TestControlNet": TestControlNet,
    "TestCfgFunction": patched_model(guide_by_the_first_timestep),
    "TestUnetWrapper": patched_model(wrap_the_unet),
    "TestPreCfgFunction": patched_model(scale_before_guidance),
    "TestCalcCondBatch": patched_model(replace_the_branches),
    "TestContextHandler": patched_model(window_the_context),
    "TestGuider": TestGuider,
    "TestRecordCalls": TestRecordCalls,
    "TestShowCalls": TestShowCalls,
}
