"""The model card of a run, as the hub shows it: from its recipe, data, figures and start."""

from pathlib import Path
from typing import Any

import yaml

from ursa_core import __version__, files
from ursa_core.bundle.bundle import resolve_model
from ursa_core.bundle.hub import parse_id
from ursa_core.bundle.summary import licence_of
from ursa_core.errors import CheckpointError
from ursa_core.recipe.fields import Recipe, TokenizerRecipe
from ursa_core.recipe.loading import to_yaml

_MARK = "<!-- `ursa train` writes this file; delete this line to keep a text of your own. -->"


def write_card(
    run: Path,
    recipe: Recipe,
    counts: dict[str, int],
    figures: dict[str, Any],
    changes: list[dict[str, Any]],
) -> None:
    """Write ``README.md`` of a run's model, unless its user has taken it over."""
    file = run / "README.md"
    if file.exists() and _MARK not in file.read_text(encoding="utf-8", errors="replace"):
        return
    kind, use = "text-to-video model", "ursa sample PROMPT --model FOLDER -o clip.mp4"
    if isinstance(recipe, TokenizerRecipe):
        kind, use = "tokenizer", "ursa tokenize CLIPS --model FOLDER -o shards"
    elif recipe.lora.rank is not None:
        kind = "LoRA adapter"
        use = f"ursa sample PROMPT --model {recipe.init} --lora FOLDER -o clip.mp4"
    head = {
        "license": recipe.licence,
        "library_name": "ursa",
        "pipeline_tag": None if kind == "tokenizer" else "text-to-video",
        "base_model": recipe.init if recipe.init and parse_id(recipe.init) else None,
    }
    by_step = {f"after step {each['step']}": "; ".join(each["changes"]) for each in changes}
    sections = {
        "Use": f"```\n{use}\n```",
        "Licence": recipe.licence or "Not stated.",
        "Start": f"{recipe.init}, {_licence(recipe.init)}." if recipe.init else "New weights.",
        "Data": _rows(counts) or "Drawn as needed.",
        "Figures": _rows(figures),
        "Changes during training": _rows(by_step),
        "Recipe": f"```yaml\n{to_yaml(recipe)}```",
    }
    top = yaml.safe_dump({key: value for key, value in head.items() if value}, sort_keys=False)
    text = f"---\n{top}---\n{_MARK}\n\n# {recipe.name}\n\n"
    text += f"A {kind}, trained by ursa {__version__}.\n"
    text += "".join(f"\n## {title}\n\n{body}\n" for title, body in sections.items() if body)
    files.write(file, text)


def _licence(init: str) -> str:
    try:
        return f"whose licence is: {licence_of(resolve_model(init, may_download=False))}"
    except CheckpointError:
        return "whose licence isn't known here"


def _rows(values: dict[str, Any]) -> str:
    shown = ((k, f"{v:.5g}" if isinstance(v, float) else str(v)) for k, v in values.items())
    return "\n".join(f"- {name}: {value}" for name, value in shown)
