"""Warnings of what a model can't take of a prompt or wasn't trained for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.sampling.generate import Request

MAX_SHOWN = 60
"""Characters shown of what is cut off."""
MAX_WORDS = 8
"""Unknown words shown."""


def prompt_warnings(bundle: "Bundle", request: "Request") -> list[str]:
    """What the model can't take of the prompts, and a size that it doesn't know."""
    from ursa_core.sampling.generate import full_negative, full_prompt

    options = request.options_for(bundle)
    texts = {"prompt": full_prompt(bundle, request)}
    if options.negative:
        texts["negative prompt"] = full_negative(bundle, request)
    warnings = []
    for name, text in texts.items():
        unknown = bundle.text_tokenizer.unknown_words(text)
        if unknown:
            warnings.append(_unknown_warning(name, text, unknown, bundle))
        if name == "prompt":
            warnings += _figure_warnings(text, bundle, bool(unknown))
        if lost := bundle.text_tokenizer.cut(text):
            warnings.append(
                f"the {name} is too long for the model, this is cut off: {_start(lost)}"
            )
    trained = bundle.settings
    if bundle.subjects and (options.height, options.width) != (trained.height, trained.width):
        warnings.append(
            f"the model was trained at {trained.height}x{trained.width} pixels alone, so figures "
            f"may come out wrong at {options.height}x{options.width}"
        )
    return warnings


def _start(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} …"


def _figure_warnings(text: str, bundle: "Bundle", has_unknown: bool) -> list[str]:
    """Several named figures, where the model draws one; or none, unless words are unknown."""
    from ursa_core.bundle.subjects import named_subjects

    if bundle.subjects and text.strip():
        named = named_subjects(text, bundle.subjects)
        if not named and not has_unknown:
            return [f"the prompt names nothing that the model draws ({_where_listed(bundle)})"]
        if len(named) > 1:
            return [f"the model draws one figure, and the prompt names {', '.join(named)}"]
    return []


def _unknown_warning(name: str, text: str, unknown: list[str], bundle: "Bundle") -> str:
    """That words are unknown, with the subjects, or a background, that they may stand for."""
    from ursa_core.bundle.subjects import nearest_subjects
    from ursa_core.worlds.emoji import nearest_background

    shown = []
    for word in unknown[:MAX_WORDS]:
        near = nearest_subjects(word, bundle.subjects)
        if bundle.subjects and not near and (colour := nearest_background(word)):
            near = [colour]
        shown.append(_visible(word) + f" (nearest: {', '.join(near)})" * bool(near))
    more = f" and {len(unknown) - MAX_WORDS} more" if len(unknown) > MAX_WORDS else ""
    warning = f"the model doesn't know these words of the {name}: {', '.join(shown)}{more}"
    if bundle.subjects:
        letters = "".join(unknown)
        foreign = len(unknown) > 2 or any(c.isalpha() and not c.isascii() for c in letters)
        if foreign and not bundle.text_tokenizer.knows_any(text):
            warning += "; it knows none, and reads English"
        warning += f" ({_where_listed(bundle)})"
    return warning


def _where_listed(bundle: "Bundle") -> str:
    return f"ursa models show {bundle.name} --prompts lists what it draws"


def _visible(word: str) -> str:
    """The word, with the characters escaped that can't be seen."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in word)
