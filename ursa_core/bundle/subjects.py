"""Subjects that a model draws by name: names, synonyms, groups and emoji characters."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from ursa_core.bundle.folder import read_json, write_json
from ursa_core.configs import parsed
from ursa_core.errors import CheckpointError

SUBJECTS_FILE = "subjects.json"
_VARIATION = "\ufe0f"
_COMMON_PARTS = frozenset(("and", "black", "face", "in", "of", "the", "white", "with"))
_LIKENESS = 0.76
"""Least similarity of spelling, in [0, 1]: ``brown`` isn't near ``broken``."""
_Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Subject:
    """One subject: name in captions, other words for it that others may share, group, emoji."""

    name: _Name
    tags: tuple[_Name, ...]
    group: _Name
    emoji: _Name


def synonyms(subjects: Sequence[Subject]) -> dict[str, tuple[str, ...]]:
    """Tags by name of the subject, without those that another subject has as tag or name."""
    counts = Counter(word for s in subjects for word in {*s.tags, s.name})
    return {
        subject.name: tuple(
            tag
            for tag in subject.tags
            if counts[tag] == 1 and tag != subject.name and re.fullmatch(r"[a-z]+( [a-z]+)*", tag)
        )
        for subject in subjects
    }


def name_emoji(text: str, subjects: Sequence[Subject]) -> str:
    """The text with the emoji of known subjects replaced by their names.

    A skin tone or other mark behind a known emoji stays, and so shows up as unknown.
    """
    names = {subject.emoji.replace(_VARIATION, ""): subject.name for subject in subjects}
    if text.isascii() or not names:
        return text
    plain, found = text.replace(_VARIATION, ""), _longest_first(names)
    named, count = re.subn(found, lambda match: f" {names[match[0]]} ", plain)
    return " ".join(named.split()) if count else text


def named_subjects(text: str, subjects: Sequence[Subject]) -> list[str]:
    """Names of the subjects that a text names, each once, as they come; else by one synonym.

    Synonyms don't count next to a name: ``purple`` is one of a heart's.
    """
    by_name = {subject.name.lower(): subject.name for subject in subjects}
    by_synonym = {tag: name for name, tags in synonyms(subjects).items() for tag in tags}
    return _found(text, by_name) or _found(text, by_synonym)[:1]


def _found(text: str, words: dict[str, str]) -> list[str]:
    found = re.findall(rf"(?<!\w)(?:{_longest_first(words)})(?!\w)", text.lower()) if words else []
    return list(dict.fromkeys(words[word] for word in found))


def _longest_first(words: Iterable[str]) -> str:
    """A pattern of words, in which a black cat comes before the cat that it begins with."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def nearest_subjects(word: str, subjects: Sequence[Subject], count: int = 3) -> list[str]:
    """Names of the subjects that a word, or an emoji's Unicode name, most likely means."""
    if not any(character.isalpha() for character in word):
        spelled = [w for each in word for w in unicodedata.name(each, "").lower().split()]
        same = [s.name for w in spelled for s in subjects if w == s.name.lower()]
        similar = [s.name for w in spelled for s in subjects if w in _telling_parts(s.name)]
        return list(dict.fromkeys([*same, *similar]))[:count]
    word = word.lower()
    singular = [word, word.removesuffix("s"), word.removesuffix("es")]
    tagged = [subject.name for w in singular for subject in subjects if w in subject.tags]
    names = {subject.name.lower(): subject.name for subject in subjects}
    for subject in subjects:
        for part in _telling_parts(subject.name):
            names.setdefault(part, subject.name)
    exact = [names[w] for w in singular if w in names]
    likely = difflib.get_close_matches(word, names, count, _LIKENESS) if len(word) > 2 else []
    return list(dict.fromkeys([*exact, *tagged, *(names[near] for near in likely)]))[:count]


def _telling_parts(name: str) -> list[str]:
    """Words of a name that say which subject it is."""
    return [part for part in name.lower().split() if part not in _COMMON_PARTS]


def save_subjects(folder: Path, subjects: Sequence[Subject]) -> None:
    """Write ``subjects.json``."""
    write_json(folder / SUBJECTS_FILE, {"subjects": [asdict(subject) for subject in subjects]})


def load_subjects(folder: Path) -> tuple[Subject, ...]:
    """The subjects of a folder, none without a ``subjects.json``; CheckpointError if damaged."""
    file = folder / SUBJECTS_FILE
    if not file.is_file():
        return ()
    try:
        return parsed(tuple[Subject, ...], read_json(file).get("subjects"))
    except ValidationError as error:
        is_short = error.errors()[0]["type"] == "string_too_short"
        what = "holds an empty name" if is_short else "lists no subjects"
        raise CheckpointError(f"{file} {what}", "fetch or make the folder again") from error
