"""Whether a text tokenizer takes captions whole: how many are cut, or hold unknown words."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from ursa_core.tokenizers.text import TextTokenizer

MAX_MEASURED = 100_000
"""Captions that are looked at: some seconds of work; the shares of more are hardly other ones."""
_AT_ONCE = 1000
_MAX_WORDS = 20


@dataclass(frozen=True)
class CaptionFit:
    """What a text tokenizer loses of captions.

    Attributes:
        length: Number of tokens that it reads of a prompt.
        num: Number of captions looked at.
        num_cut: Number of those that are longer.
        example: The first longer one.
        lost: What is cut off of it.
        num_unknown: Number of captions with words that the vocabulary lacks.
        unknown: Most frequent of these words.
    """

    length: int
    num: int
    num_cut: int
    example: str
    lost: str
    num_unknown: int
    unknown: tuple[str, ...]


def measure_captions(
    tokenizer: TextTokenizer,
    captions: Iterable[str],
    to_prompt: Callable[[str], str] = lambda caption: caption,
) -> CaptionFit:
    """What a text tokenizer loses of the first ``MAX_MEASURED`` captions.

    Args:
        tokenizer: Of the prompts.
        captions: As data has them.
        to_prompt: What the model reads of a caption, as one with a motion score before it.
    """
    num = num_cut = num_unknown = 0
    example = lost = ""
    words: Counter[str] = Counter()
    rest = islice(captions, MAX_MEASURED)
    while some := list(islice(rest, _AT_ONCE)):
        num += len(some)
        losses = tokenizer.losses([to_prompt(caption) for caption in some])
        for caption, (unknown, cut) in zip(some, losses, strict=True):
            words.update(unknown)
            num_unknown += bool(unknown)
            num_cut += bool(cut)
            if cut and not lost:
                example, lost = caption, cut
    named = tuple(word for word, _ in words.most_common(_MAX_WORDS))
    return CaptionFit(tokenizer.max_prompt_length, num, num_cut, example, lost, num_unknown, named)
