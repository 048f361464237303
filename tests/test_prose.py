"""Plain English in docstrings: what a test can count of it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted([*ROOT.glob("ursa_core/**/*.py"), *ROOT.glob("ursa_cli/**/*.py")])
# An argument is described by a noun phrase, not by a fragment that leans on its name.
PREPOSITIONS = re.compile(
    r"(about|above|after|among|as|at|before|behind|below|beneath|beside|between|beyond|by|during"
    r"|for|from|in|inside|into|like|likewise|of|off|on|onto|out|outside|over|per|since|than|through"
    r"|to|toward|towards|under|until|up|upon|via|with|within|without)\b",
    re.IGNORECASE,
)
ITEM = re.compile(r"^    \*{0,2}\w+(?: \([^)]*\))?: (?P<text>.+)")


def fragments(file: Path) -> list[str]:
    """Lines of Args and Attributes sections whose text starts with a preposition."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        section = ""
        for line in (ast.get_docstring(node) or "").split("\n"):
            if re.fullmatch(r"\w+:", line):
                section = line
            item = ITEM.match(line)
            counts = section in ("Args:", "Attributes:") and item
            if counts and PREPOSITIONS.match(item["text"]):
                found.append(line.strip())
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(ROOT)))
def test_arguments_are_noun_phrases(file):
    assert fragments(file) == []


def test_a_fragment_is_found(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        'def f(a, b):\n    """Sum.\n\n    Args:\n        a: of many.\n        b: Count.\n    """\n'
    )
    assert fragments(module) == ["a: of many."]
