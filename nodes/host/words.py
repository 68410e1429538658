"""Words of prompts in a CLIP's tokens, and texts as conditionings."""

from __future__ import annotations

from ...ddpm_core.attention.words import END, Tokens, spelled
from .wires import NodeError

KINDS = ("l", "g", "h")  # CLIP's tokenizers in ComfyUI; where a model has two, the same words lie at the same places


def check_clip(node: str, clip) -> None:
    """Raises NodeError where a loader found no text encoder."""
    if clip is None:
        raise NodeError(node, "clip", "there is no text encoder.", "Connect the CLIP of the checkpoint.")


def tokens_of(node: str, clip, tokenized: dict) -> Tokens:
    """Where the words of a tokenized text lie in its context, whose chunks have a start and an end
    each. Raises NodeError for text encoders that know no words."""
    kind = next((kind for kind in KINDS if kind in tokenized), None)
    tokenizer = getattr(clip.tokenizer, f"clip_{kind}", None)
    if tokenizer is None:
        problem = f"this text encoder has no CLIP, whose tokens show words; it has {', '.join(tokenized)}."
        raise NodeError(node, "clip", problem, "Use the CLIP of Stable Diffusion 1, 2 or XL.")
    words, roles, offset = [], {"start": [], "end": [], "padding": []}, 0
    for chunk in tokenized[kind]:
        ids = [pair[0] if isinstance(pair[0], int) else None for pair in chunk]  # None: an embedding of the user's
        end = ids.index(tokenizer.end_token, 1)
        pieces = (f"embedding{END}" if token is None else tokenizer.inv_vocab[token] for token in ids[1:end])
        words += spelled(enumerate(pieces, start=offset + 1))
        roles["start"].append(offset)
        roles["end"].append(offset + end)
        roles["padding"] += range(offset + end + 1, offset + len(ids))
        offset += len(ids)
    return Tokens(words, **roles)
