"""What a model can't take of a prompt, or was not trained for, said before it is sampled."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ursa_core.bundle import Bundle
    from ursa_core.sampling.generate import GenerateOptions

MAX_SHOWN = 60
"""Characters shown of what is cut off."""
MAX_WORDS = 8
"""Unknown words shown."""


def prompt_warnings(bundle: "Bundle", wanted: "GenerateOptions") -> list[str]:
    """What the model can't take of the prompts, and a size that it doesn't know."""
    from ursa_core.sampling.generate import full_negative, full_prompt, pixel_shape

    texts = {"prompt": full_prompt(bundle, wanted)}
    if wanted.negative:
        texts["negative prompt"] = full_negative(bundle, wanted)
    warnings = []
    for name, text in texts.items():
        unknown = bundle.text_tokenizer.unknown_words(text)
        if unknown:
            warnings.append(_unknown_warning(name, text, unknown, bundle))
        lost = bundle.text_tokenizer.cut(text)
        if lost:
            lost = lost if len(lost) <= MAX_SHOWN else f"{lost[:MAX_SHOWN]} …"
            warnings.append(f"the {name} is too long for the model, this is cut off: {lost}")
    trained, shape = bundle.settings, pixel_shape(bundle, wanted)
    if bundle.subjects and (shape.height, shape.width) != (trained.height, trained.width):
        warnings.append(
            f"the model was trained at {trained.height}x{trained.width} pixels alone, so figures "
            f"may come out wrong at {shape.height}x{shape.width}"
        )
    return warnings


def _unknown_warning(name: str, text: str, unknown: list[str], bundle: "Bundle") -> str:
    """That words are unknown, with the subjects that they may stand for."""
    from ursa_core.subjects import nearest_subjects

    shown = [
        f"{word} (nearest: {', '.join(near)})"
        if (near := nearest_subjects(word, bundle.subjects))
        else word
        for word in unknown[:MAX_WORDS]
    ]
    more = f" and {len(unknown) - MAX_WORDS} more" if len(unknown) > MAX_WORDS else ""
    warning = f"the model doesn't know these words of the {name}: {', '.join(shown)}{more}"
    if bundle.subjects and set(re.findall(r"\w+", text)) <= set(unknown):
        warning += "; it knows none, and reads English"
    if bundle.subjects:
        warning += f" (ursa models show {bundle.name} --prompts lists what it draws)"
    return warning
