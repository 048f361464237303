"""Names of outputs: from a template, or given; safe, inside the folder, and no two the same."""

import re
import string
import unicodedata

from ursa_core.batches.lists import nearest
from ursa_core.errors import UsageError

DEFAULT_TEMPLATE = "{index:05d}-{slug}.mp4"
FIELDS = ("index", "slug", "seed")
_MAX_NAME_BYTES = 200  # of 255, since temporary names are longer
_MAX_SLUG_BYTES = 48
_WORDS = re.compile(r"\w+")


def slug(text: str) -> str:
    """A text for a file name: its words in lower case, joined by hyphens; symbols by name."""
    if not text.isascii():
        text = "".join(
            f" {unicodedata.name(each, '')} " if unicodedata.category(each) == "So" else each
            for each in unicodedata.normalize("NFC", text)
        )
    words = _WORDS.findall(text.lower())
    cut = "-".join(words).encode()[:_MAX_SLUG_BYTES].decode(errors="ignore")
    return cut.strip("-_") or "untitled"


def check_template(template: str) -> None:
    """Refuse, with a UsageError, a template that no safe name can be made by."""
    hint = f"use {', '.join(f'{{{field}}}' for field in FIELDS)}, as in {DEFAULT_TEMPLATE}"
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UsageError(f"{template!r} is no template: {error}", hint) from error
    for _, field, form, conversion in parts:
        if field not in FIELDS:
            fault = f"the template {template!r} has the unknown field {{{field}}}"
            raise UsageError(fault, f"{nearest(str(field), FIELDS)}; {hint}")
        if conversion or "{" in str(form) or re.search(r"\d{3}", str(form)):
            raise UsageError(f"the template {template!r} can't format {{{field}}} so", hint)
    try:
        name = made_name(template, 0, "a", 0)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"the template {template!r} can't be filled: {error}", hint) from error
    check_name(name)


def made_name(template: str, index: int, prompt: str, seed: int) -> str:
    """The name of an item by a checked template."""
    return template.format(index=index, slug=slug(prompt), seed=seed)


def check_name(name: str) -> None:
    """Refuse, with a UsageError, a name that isn't that of one visible file inside the folder."""
    hint = "give a plain file name, as a-red-circle.mp4"
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise UsageError(f"{name!r} is no name of a file inside the folder", hint)
    if name.startswith((".", "-", "~")) or name != name.strip():
        raise UsageError(f"the name {name!r} can't begin or end so", hint)
    is_plain = name.isascii() and name.isprintable()
    if not is_plain and any(unicodedata.category(each) in ("Cc", "Cs", "Cf") for each in name):
        raise UsageError(f"the name {name!a} has characters that can't be seen", hint)
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise UsageError(f"the name {name[:40]}… is too long", f"use {_MAX_NAME_BYTES} bytes")


def same_file(name: str) -> str:
    """What two names have in common that some file systems take for one."""
    return unicodedata.normalize("NFC", name).casefold()
