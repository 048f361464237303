"""What a model of named figures can draw: names, synonyms, groups and emoji characters."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ursa_core.errors import CheckpointError
from ursa_core.model_folder import read_json, write_json

SUBJECTS_FILE = "subjects.json"
_VARIATION = "\ufe0f"


@dataclass(frozen=True)
class Subject:
    """One figure.

    Attributes:
        name: as captions say it.
        tags: other words for it, which other figures may share.
        group: of figures, such as ``animals``.
        emoji: its character or sequence of characters.
    """

    name: str
    tags: tuple[str, ...]
    group: str
    emoji: str


def synonyms(subjects: Sequence[Subject]) -> dict[str, tuple[str, ...]]:
    """Tags by name of the subject, those left out that another subject has as tag or name."""
    counts: dict[str, int] = {}
    for subject in subjects:
        for word in {*subject.tags, subject.name}:
            counts[word] = counts.get(word, 0) + 1
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
    # The longest sequence first: a black cat begins with the cat.
    longest_first = sorted(names, key=len, reverse=True)
    found = "|".join(map(re.escape, longest_first))
    plain = text.replace(_VARIATION, "")
    named, count = re.subn(found, lambda match: f" {names[match[0]]} ", plain)
    return " ".join(named.split()) if count else text


def nearest_subjects(word: str, subjects: Sequence[Subject], count: int = 3) -> list[str]:
    """Names of the subjects that a word most likely means: by tag, then by spelling."""
    word = word.lower()
    tagged = [subject.name for subject in subjects if word in subject.tags]
    names: dict[str, str] = {}
    for subject in subjects:
        for part in (subject.name, *subject.name.split()):
            names.setdefault(part.lower(), subject.name)
    close = [names[near] for near in difflib.get_close_matches(word, names, count, cutoff=0.6)]
    return list(dict.fromkeys([*tagged, *close]))[:count]


def save_subjects(folder: Path, subjects: Sequence[Subject]) -> None:
    """Write ``subjects.json``."""
    write_json(folder / SUBJECTS_FILE, {"subjects": [asdict(subject) for subject in subjects]})


def load_subjects(folder: Path) -> tuple[Subject, ...]:
    """The subjects of a folder, none without a ``subjects.json``.

    Raises:
        CheckpointError: the file is damaged.
    """
    file = folder / SUBJECTS_FILE
    if not file.is_file():
        return ()
    content = read_json(file)
    try:
        subjects = tuple(
            Subject(**{**entry, "tags": tuple(entry["tags"])}) for entry in content["subjects"]
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file} lists no subjects", "fetch or make the folder again") from (
            error
        )
    texts = [text for s in subjects for text in (s.name, s.group, s.emoji, *s.tags)]
    if not all(isinstance(text, str) and text for text in texts):
        raise CheckpointError(f"{file} holds an empty name", "fetch or make the folder again")
    return subjects
