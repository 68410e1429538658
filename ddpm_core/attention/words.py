"""Which words of one prompt stand for which words of another, on the level of a text encoder's
tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from ..checks import BadArgument

END = "</w>"  # of a word's last token in CLIP's vocabulary
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = dict(zip(map(chr, _PRINTABLE), _PRINTABLE))  # the vocabulary's letters, each a byte of UTF-8
_BYTES |= {chr(256 + i): byte for i, byte in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))}


@dataclass(frozen=True)
class Tokens:
    """Where a prompt's words lie among the positions of its context.

    words    (text, positions) in the order of the prompt; a word may take several positions
    start, end, padding  positions by their role; each may be empty
    """

    words: Sequence[tuple[str, Sequence[int]]]
    start: Sequence[int] = ()
    end: Sequence[int] = ()
    padding: Sequence[int] = ()

    @property
    def length(self) -> int:
        """How many positions the context has."""
        return sum(len(at) for _, at in self.words) + len(self.start) + len(self.end) + len(self.padding)

    def positions(self, word: str) -> list[int]:
        """Of every occurrence of a word or of several words in a row. Raises BadArgument where it
        does not occur."""
        wanted, texts = "".join(word.lower().split()), [text.lower() for text, _ in self.words]
        places = []
        for i in range(len(texts)):
            for j in range(i + 1, len(texts) + 1):  # a tokenizer cuts words too: t-shirt has three parts
                text = "".join(texts[i:j])
                if text == wanted:
                    places.append((i, j))
                if text == wanted or not wanted.startswith(text):
                    break
        if not places:
            known = ", ".join(dict.fromkeys(text for text, _ in self.words))
            raise BadArgument("word", f"{word!r} does not occur in the prompt, whose words are: {known}.")
        return [p for i, j in places for _, at in self.words[i:j] for p in at]


def spelled(pieces: Iterable[tuple[int, str]]) -> list[tuple[str, tuple[int, ...]]]:
    """The words of (position, piece) of CLIP's tokens; a long prompt may be cut within the last."""
    words, at, text = [], [], ""
    for position, piece in pieces:
        at.append(position)
        text += piece.removesuffix(END)
        if piece.endswith(END):
            words.append((_written(text), tuple(at)))
            at, text = [], ""
    return [*words, (_written(text), tuple(at))] if at else words


def _written(letters: str) -> str:
    """What a person has written for letters of CLIP's vocabulary."""
    if all(letter in _BYTES for letter in letters):
        return bytes(_BYTES[letter] for letter in letters).decode("utf-8", "replace")
    return letters


@dataclass(frozen=True, eq=False)
class WordMap:
    """What a target's tokens take from a source's attention A_s (..., Ls) and from their own A_t
    (..., Lt):

        A'[n] = sum_w A_s[w] taken[w, n] + own[n] A_t[n]

    taken   (Ls, Lt): a word that both prompts have takes the source's attention; a replaced word of
            n tokens takes that of the word in its place, whose whole mass goes over to it
    own     (Lt,): 1 for words that only the target has, else 0
    source, target  the prompts' words
    """

    taken: Tensor
    own: Tensor
    source: Tokens
    target: Tokens


def align(source: Tokens, target: Tokens) -> WordMap:
    """The word map of two prompts, from the longest common subsequence of their words
    (Prompt-to-Prompt, Hertz et al. 2208.01626, section 3.2: replacement and refinement in one).

    Between common words, as many words of the source as of the target replace each other one by
    one, others as a group; words that only the target has keep their own attention. Start, end and
    padding go by role, not by position: the k-th padding token stands for the k-th, and where one
    prompt has more, the last one stands for the rest. So no mass is lost but that of words that the
    target leaves out.
    """
    taken, own = torch.zeros(source.length, target.length), torch.zeros(target.length)
    texts = [[text.lower() for text, _ in tokens.words] for tokens in (source, target)]
    for kind, i, i_end, j, j_end in SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        ours, theirs = target.words[j:j_end], source.words[i:i_end]
        if len(ours) == len(theirs):
            for (_, from_), (_, to) in zip(theirs, ours):
                _give(taken, from_, to)
        elif kind == "replace":
            _give(taken, [p for _, at in theirs for p in at], [p for _, at in ours for p in at])
        elif kind == "insert":
            own[[p for _, at in ours for p in at]] = 1
    _give(taken, source.start, target.start)
    _give(taken, source.end, target.end)
    _give_in_order(taken, source.padding, target.padding)
    return WordMap(taken, own, source, target)


def _give(taken: Tensor, source: Sequence[int], target: Sequence[int]) -> None:
    """All the mass of some positions to others: one to one where there are as many, else shared out
    evenly."""
    if len(source) == len(target):
        taken[list(source), list(target)] = 1
    elif target:
        for position in source:
            taken[position, list(target)] = 1 / len(target)


def _give_in_order(taken: Tensor, source: Sequence[int], target: Sequence[int]) -> None:
    """One to one from the first on; what is left of the longer side belongs to the last of the
    shorter."""
    if not source or not target:
        return
    last = min(len(source), len(target)) - 1
    _give(taken, source[:last], target[:last])
    _give(taken, source[last:], target[last:])
