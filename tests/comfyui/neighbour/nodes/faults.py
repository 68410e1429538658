"""Nodes that go wrong on purpose, and nodes that tell what the server holds."""

import dataclasses
import gc
import json

import comfy.model_management
import psutil
import torch

FAULTS = ["none", "interrupt", "error", "value error", "nan", "inf", "out of memory", "out of memory in words"]
WORDS = "the patch found no scale for this layer"
# tag -> samples in each call of the model; not a node's own, so that a fault at a call happens once,
# however often its prompt is queued.
calls = {}


class FaultyModel:
    """A MODEL that goes wrong at call number `at`, or, out of memory, in each call of more than
    `at` samples.

    The fault sits in a function wrapper ("wrapper"), or in the network itself ("network"), which
    nobody who looks at the model's options can see.
    """

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "fault": (FAULTS,),
                "at": ("INT", {}),
                "tag": ("STRING", {}),
                "place": (["wrapper", "network"],),
            }
        }

    def make(self, model, fault, at, tag, place):
        sizes = calls.setdefault(tag, [])

        def call(inner, x, *args, **kwargs):
            sizes.append(len(x))
            if fault.startswith("out of memory") and len(x) > at:
                raise (torch.cuda.OutOfMemoryError if fault == "out of memory" else RuntimeError)(
                    f"the device is out of memory for {len(x)} samples"
                )
            now = fault if len(sizes) == at else "none"
            if now == "interrupt":
                comfy.model_management.interrupt_current_processing()
            if now in ("error", "value error"):
                raise (RuntimeError if now == "error" else ValueError)(WORDS)
            out = inner(x, *args, **kwargs)
            if now == "nan":
                out = out * torch.nan
            if now == "inf":
                out[0, 0, 0, 0] = torch.inf
            return out

        faulty = model.clone()
        if place == "wrapper":
            faulty.set_model_unet_function_wrapper(
                lambda apply, given: call(apply, given["input"], given["timestep"], **given["c"])
            )
        else:
            forward = model.get_model_object("diffusion_model").forward
            faulty.add_object_patch("diffusion_model.forward", lambda *args, **kwargs: call(forward, *args, **kwargs))
        return (faulty,)


class BrokenLatent:
    """The latent with one value replaced."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",), "value": (["nan", "inf"],)}}

    def make(self, latent, value):
        samples = latent["samples"].clone()
        samples[0, 0, 0, 0] = float(value)
        return ({**latent, "samples": samples},)


class BrokenMask:
    """The mask with one value replaced by NaN."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"mask": ("MASK",)}}

    def make(self, mask):
        mask = mask.clone()
        mask[0, 0, 0] = torch.nan
        return (mask,)


class Report:
    """An output node that shows `tell`'s answer as JSON, anew each time that it is queued."""

    RETURN_TYPES = ()
    FUNCTION = "show"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def IS_CHANGED(cls, **kwargs):
        return float("nan")

    def show(self, **inputs):
        return {"ui": {"text": [json.dumps(self.tell(**inputs))]}}


class ModelCalls(Report):
    """The samples in each call of the faulty model of this tag."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"tag": ("STRING", {})}}

    def tell(self, tag):
        return calls[tag]


class MapsReport(Report):
    """Device, dtype, shape and bytes of each tensor in noise maps."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"noise_maps": ("NOISE_MAPS",)}}

    def tell(self, noise_maps):
        held = {field.name: getattr(noise_maps, field.name) for field in dataclasses.fields(noise_maps)}
        return {
            name: {
                "device": str(tensor.device),
                "dtype": str(tensor.dtype),
                "shape": list(tensor.shape),
                "bytes": tensor.untyped_storage().nbytes(),
            }
            for name, tensor in held.items()
            if isinstance(tensor, torch.Tensor)
        }


class ServerState(Report):
    """Once the picture is there: the server's memory and processor time, and, with `count`, the
    tensors that are alive in it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "count": ("BOOLEAN", {})}}

    def tell(self, image, count):
        process = psutil.Process()
        state = {"rss": process.memory_info().rss, "seconds": sum(process.cpu_times()[:2])}
        if count:
            gc.collect()
            tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
            storages = {
                tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                for tensor in tensors
                if tensor.device.type == "cpu"
            }
            state |= {"tensors": len(tensors), "bytes": sum(storages.values())}
        return state


NODES = {kind.__name__: kind for kind in (FaultyModel, BrokenLatent, BrokenMask, ModelCalls, MapsReport, ServerState)}
