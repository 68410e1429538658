"""EditDirection: an edit as the way from some sentences to others (arXiv 2302.03027, Zero-shot
Image-to-Image Translation)."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..ddpm_core.attention.pix2pix_zero import direction
from ..ddpm_core.attention.pix2pix_zero import sentences as sides_of
from .host.wires import NodeError, Socket, known, naming
from .host.words import check_clip

NODE = "EditDirection"
OWN = "own sentences"
READY = Path(__file__).parent / "directions"  # NAME.txt: sentences, one a line, and a line -> between the sides


class EditDirection(io.ComfyNode):
    """A direction between sentences, added to a prompt's words (arXiv 2302.03027, Zero-shot
    Image-to-Image Translation, section 3.1). The paper's step along the gradient of attention
    cannot be made in ComfyUI, whose weights are inference tensors: the direction goes with guidance
    from the source and with attention control."""

    @classmethod
    def define_schema(cls):
        ready = sorted(path.stem for path in READY.glob("*.txt"))
        return io.Schema(
            node_id="EditDirection",
            display_name="Edit Direction",
            category="edit-friendly noise maps/attention",
            description="An edit without a target prompt: the source prompt, moved by the difference between sentences "
            "about the one and the other, such as cats and dogs (Zero-Shot I2I, pix2pix-zero). Any text encoder whose "
            "texts have one length.",
            **known(io.Schema, search_aliases=["pix2pix-zero", "zero-shot I2I", "cat to dog", "semantic direction"]),
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder that made the conditioning."),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="What is moved: the source prompt, or target of a Prompt Pair of equal texts.",
                ),
                io.Combo.Input(
                    "ready",
                    options=[OWN, *ready],
                    default=OWN,
                    tooltip="A direction that comes with the pack, or your own sentences. Two are for the demo model.",
                ),
                io.String.Input(
                    "sentences",
                    default="a photo of a cat\na cat on a sofa\n->\na photo of a dog\na dog on a sofa",
                    multiline=True,
                    tooltip="Sentences about the source, one a line, a line ->, and some about the target. More are "
                    "better: the paper has hundreds. Read where ready is own sentences and file is empty.",
                ),
                io.String.Input(
                    "file",
                    default="",
                    tooltip="The same as a text file in ComfyUI's input folder, such as cat2dog.txt.",
                    **known(io.String.Input, advanced=True),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How far it goes: 1 as in the paper, 0 gives the conditioning back, below 0 the other way.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(id="moved", display_name="moved", tooltip="For positive of Noise Map Edit.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file="", **kwargs):
        return _path(file).stat().st_mtime_ns if file else ""

    @classmethod
    def execute(cls, clip, conditioning, ready, sentences="", file="", strength=1.0, **kwargs) -> io.NodeOutput:
        check_clip(NODE, clip)
        path = READY / f"{ready}.txt" if ready != OWN else _path(file) if file else None
        text = sentences if path is None else _read(path)
        socket = "sentences" if path is None else "file" if ready == OWN else "ready"
        with naming(NODE, socket, direction=Socket(socket)):
            sides = [[_encoded(clip, sentence) for sentence in side] for side in sides_of(text)]
        moved = []
        for embedding, entry in conditioning:
            hidden = _fitting(_shift(sides, 0, embedding.shape[1]), embedding)
            pooled = entry.get("pooled_output")
            own = {}
            if pooled is not None:
                own["pooled_output"] = pooled + strength * _fitting(_shift(sides, 1), pooled).to(pooled)
            moved.append([embedding + strength * hidden.to(embedding), {**entry, **own}])
        return io.NodeOutput(moved)


def _fitting(change: Tensor, embedding: Tensor) -> Tensor:
    """A direction that a conditioning's embeddings can be moved by. Raises NodeError."""
    if change.shape[-1] != embedding.shape[-1]:
        problem = f"it has embeddings of {embedding.shape[-1]} numbers, and this CLIP makes {change.shape[-1]}."
        raise NodeError(NODE, "conditioning", problem, "Make it with this CLIP.")
    return change


def _encoded(clip, sentence: str) -> tuple[Tensor, Tensor]:
    """A sentence's embedding (1, L, D) and its pooled one (1, E)."""
    return clip.encode_from_tokens(clip.tokenize(sentence), return_pooled=True)


def _shift(sides: list, part: int, length: int | None = None) -> Tensor:
    """The direction of embeddings, in each chunk of a conditioning of this length, or of the pooled
    ones."""
    lengths = sorted({encoded[part].shape[1] for side in sides for encoded in side})
    if length is not None and (len(lengths) > 1 or length % lengths[0]):
        problem = f"sentences of {lengths} tokens cannot be added to a conditioning of {length}."
        raise NodeError(NODE, "conditioning", problem, "Make it with this CLIP, and keep the sentences short.")
    change = direction(*(torch.cat([encoded[part] for encoded in side]) for side in sides))
    return change if length is None else change.repeat(1, length // lengths[0], 1)


def _path(name: str) -> Path:
    """Where a text file of the input folder lies. Raises NodeError for one that is absent or
    elsewhere."""
    folder = os.path.abspath(folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(folder, name))
    if not (path.startswith(folder + os.sep) and path.endswith(".txt") and os.path.isfile(path)):
        problem = f"there is no text file {name!r} in ComfyUI's input folder."
        raise NodeError(NODE, "file", problem, "Put it there, with a name that ends in .txt.")
    return Path(path)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NodeError(NODE, "file", f"{path.name} is no text in UTF-8.", "Save it as UTF-8.") from error


NODES = [EditDirection]
