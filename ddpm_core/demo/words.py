"""Which words the demo model knows: those of its tokenizer, in which every word of a caption is one
token."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from .model import FOLDER


@cache
def _known(tokenizer: Path) -> frozenset[str]:
    tokens = json.loads((tokenizer / "vocab.json").read_text("utf-8"))
    return frozenset(token.removesuffix("</w>") for token in tokens if token.endswith("</w>"))


def unknown_words(prompt: str, tokenizer: Path = FOLDER / "tokenizer") -> list[str]:
    """The words of a prompt that the model has never seen, each once, in their order."""
    known = {word for word in _known(tokenizer) if len(word) > 1} | {"a"}  # it can spell with any letter
    return [word for word in dict.fromkeys(re.findall(r"[^\W\d_]+", prompt.lower())) if word not in known]


def warning(prompt: str) -> str | None:
    """What to tell a person whose prompt has words that the model does not know."""
    words = unknown_words(prompt)
    if not words:
        return None
    example = '"a striped red star on a blue background"'
    return f"the demo model does not know: {', '.join(words)}. It reads only captions such as {example}."
