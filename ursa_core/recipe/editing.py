"""Changes to a recipe's path in its file; every other byte stays, comments included."""

from pathlib import Path

import yaml

from ursa_core import files
from ursa_core.errors import RecipeError, unreadable
from ursa_core.places import regular_file

_HINT = "give a recipe's YAML file"


def write_path(file: Path, values: dict[str, str | float | None]) -> None:
    """Set all keys of the recipe's ``path``, numbers with four digits; those of value None go."""
    try:
        text = regular_file(file).read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise unreadable(file, error, _HINT, RecipeError) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{file} can't be read: {str(error).splitlines()[0]}", _HINT) from error
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{file} holds no keys", _HINT)
    shown = {
        key: value if value is None or isinstance(value, str) else f"{value:.4g}"
        for key, value in values.items()
    }
    pairs = (f"{key}: {value}" for key, value in shown.items() if value is not None)
    flow = f"{{{', '.join(pairs)}}}"
    path = next((node for key, node in root.value if key.value == "path"), None)
    if path is None:
        text += "" if text.endswith("\n") else "\n"
        edits = [(len(text), len(text), f"path: {flow}\n")]
    elif isinstance(path, yaml.MappingNode) and not path.flow_style:
        edits = _block_edits(text, path, shown)
    else:
        edits = [(path.start_mark.index, path.end_mark.index, flow)]
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    files.write(file, text)


def _block_edits(
    text: str, path: yaml.MappingNode, new: dict[str, str | None]
) -> list[tuple[int, int, str]]:
    """Edits (start, end, replacement), one per key, of a mapping with one key per line."""
    first = path.value[0][0].start_mark
    found = {key.value: (key, node) for key, node in path.value}
    edits, added = [], ""
    for name, value in new.items():
        if name not in found:
            added += "" if value is None else " " * first.column + f"{name}: {value}\n"
            continue
        key, node = found[name]
        if value is not None:
            edits.append((node.start_mark.index, node.end_mark.index, value))
        else:
            end = text.find("\n", node.end_mark.index) + 1
            edits.append((key.start_mark.index - first.column, end or len(text), ""))
    top = first.index - first.column
    return [*edits, (top, top, added)] if added else edits
