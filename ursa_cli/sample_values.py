"""The values that a clip is made by, whether options, a line of a batch or a file gave them."""

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from ursa_cli import options

if TYPE_CHECKING:
    from ursa_core.bundle import Bundle
    from ursa_core.sampling.generate import GenerateOptions

MAX_SEED = 2**63
VALUES: dict[str, type] = {
    "prompt": str,
    "seed": int,
    "negative": str,
    "frames": int,
    "size": str,
    "fps": float,
    "motion": float,
    "crf": int,
    "steps": int,
    "guidance": float,
    "guidance_interval": str,
    "solver": str,
    "shift": float,
    "temperature": float,
    "top_p": float,
}
"""Name and type of each value of `ursa sample`; None is the model's own."""


def check(values: Mapping[str, Any]) -> None:
    """Refuse values that nothing could be made of, before anything is loaded.

    Raises:
        UsageError: a value out of range or of another form, or a text that isn't UTF-8.
    """
    require = options.require
    ranges = {  # lowest and highest value, in words
        "fps": (0.1, 1000, "0.1 to 1000"),
        "frames": (1, 1_000_000, "1 to 1000000"),
        "steps": (1, 10_000, "1 to 10000"),
        "guidance": (0, 100, "0 to 100; 1 is off"),
        "shift": (5e-324, 1.7e308, "above 0; 1 is none"),
        "crf": (0, 51, "0 (lossless) to 51 (worst)"),
        "seed": (0, MAX_SEED - 1, "0 to 2^63 - 1"),
    }
    for name, (low, high, words) in ranges.items():
        value = values[name]
        require(value is None or low <= value <= high, f"--{name}", value, words)
    motion, temperature, top_p = (values[name] for name in ("motion", "temperature", "top_p"))
    require(motion is None or 0 <= motion < inf, "--motion", motion, "0 or more, as 9")
    require(0 < temperature < inf, "--temperature", temperature, "a number above 0")
    require(0 < top_p <= 1, "--top-p", top_p, "above 0 to 1 (all)")
    for name, text in (("prompt", "prompt"), ("negative prompt", "negative")):
        options.require_text(name, values[text], may_be_empty=True)
    settings(values)


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The model's settings that are given, by name.

    Raises:
        UsageError: size or interval have another form.
    """
    names = ("negative", "frames", "fps", "steps", "guidance", "shift")
    given = {name: values[name] for name in names}
    if values["size"] is not None:
        given["height"], given["width"] = options.parse_size(values["size"])
    if values["guidance_interval"] is not None:
        given["guidance_interval"] = options.parse_interval(values["guidance_interval"])
    return {name: value for name, value in given.items() if value is not None}


def prompt_warnings(bundle: "Bundle", wanted: "GenerateOptions") -> list[str]:
    """What the model can't take of the prompts."""
    from ursa_core.sampling.generate import full_prompt

    negative = wanted.negative or ""
    warnings = []
    for name, text in (("prompt", full_prompt(bundle, wanted)), ("negative prompt", negative)):
        unknown = bundle.text_tokenizer.unknown_words(text)
        if unknown:
            warnings.append(
                f"the model doesn't know these words of the {name}: {', '.join(unknown)}"
            )
        lost = bundle.text_tokenizer.cut(text)
        if lost:
            warnings.append(f"the {name} is too long for the model, this is cut off: {lost}")
    return warnings
