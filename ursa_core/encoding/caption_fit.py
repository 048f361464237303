"""Whether a text tokenizer takes captions whole: how many are cut, or have unknown words."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from ursa_core.tokenizers.text import TextTokenizer

MAX_MEASURED = 100_000  # captions, in some seconds; more would hardly change the shares
_AT_ONCE = 1000
_MAX_WORDS = 20
_MAX_WORDS_SHOWN = 8
_MAX_CHARACTERS_SHOWN = 60


@dataclass(frozen=True)
class CaptionFit:
    """What a text tokenizer loses of captions."""

    length: int  # tokens that it reads of a prompt
    num: int  # captions examined
    num_cut: int  # longer captions
    example: str  # the first longer caption
    lost: str  # the part of it that is cut off
    num_unknown: int  # captions with words that the vocabulary lacks
    unknown: dict[str, int]  # most frequent of these words, and how many captions hold them
    is_extended: bool = False  # whether these words are added to the vocabulary

    def warnings(self, model: str = "the model") -> list[str]:
        """What to warn a user of, if anything."""
        found = []
        if self.num_cut:
            found.append(
                f"{self._share(self.num_cut)} are longer than the {self.length} tokens that {model}"
                f' reads: of "{_start(self.example)}" this is cut off: "{_start(self.lost)}"'
            )
        if self.num_unknown:
            counts = list(self.unknown.items())[:_MAX_WORDS_SHOWN]
            words = [f"{visible(word)} ({count:,})" for word, count in counts]
            more = ", …" if len(self.unknown) > len(words) else ""
            end = "; vocabulary: extend adds them" if self.is_extended else ""
            found.append(
                f"{self._share(self.num_unknown)} hold words that {model} doesn't know:"
                f" {', '.join(words)}{more}{end}"
            )
        return found

    def _share(self, count: int) -> str:
        return f"{count:,} of {self.num:,} captions ({100 * count / self.num:.3g} %)"


def _start(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _MAX_CHARACTERS_SHOWN else f"{text[:_MAX_CHARACTERS_SHOWN]} …"


def visible(text: str) -> str:
    """The text, with the characters escaped that can't be seen."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def measure_captions(
    tokenizer: TextTokenizer,
    captions: Iterable[str],
    to_prompt: Callable[[str], str] = lambda caption: caption,
) -> CaptionFit:
    """What a text tokenizer loses of the first ``MAX_MEASURED`` captions, each made a prompt."""
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
    named = dict(words.most_common(_MAX_WORDS))
    return CaptionFit(tokenizer.max_prompt_length, num, num_cut, example, lost, num_unknown, named)
