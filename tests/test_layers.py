"""Who may import whom (docs/architecture.md), and what stays out of a quick start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a room imports only rooms of the lines above its own.
FLOORS = """
amounts errors seeding shipped
places
configs devices files grids parts
batches media models path
tokenizers tokens
bundle
worlds
convert encoding recipe sampling
calibration clips training
evaluation
rewards
"""
CLI_FLOORS = """
terminal
options
batch_run
commands
main
__main__
"""
APART = [{"path", "models", "tokenizers"}, {"training", "evaluation"}]
HEAVY = ("torch", "transformers", "av", "matplotlib", "pydantic", "numpy", "PIL")
MODULES = sorted([*ROOT.glob("ursa_core/**/*.py"), *ROOT.glob("ursa_cli/**/*.py")])


def imports(file: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports; those for type checking alone left out."""
    tree = ast.parse(file.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            module = node.module or ""
            found |= {module} if "." in module else {f"{module}.{a.name}" for a in node.names}
    return found


def room(name: str) -> str:
    """The room of a dotted name: the module or folder below its package."""
    return name.split(".")[1] if "." in name else ""


def floor_of(floors: str) -> dict[str, int]:
    return {name: k for k, line in enumerate(floors.split("\n")) for name in line.split()}


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_downwards(file):
    names = imports(file)
    own = room(".".join(file.relative_to(ROOT).with_suffix("").parts))
    in_core = file.is_relative_to(ROOT / "ursa_core")
    if in_core:
        assert not any(name.split(".")[0] in ("ursa_cli", "typer", "rich") for name in names)
    package = "ursa_core" if in_core else "ursa_cli"
    floors = floor_of(FLOORS if in_core else CLI_FLOORS)
    used = {room(name) for name in names if name.split(".")[0] == package}
    used -= {own, "", "__version__"}
    if own != "__init__":
        assert all(floors[name] < floors[own] for name in used), f"{own} imports {used}"
    for group in APART if in_core else ():
        if own in group:
            assert not used & (group - {own})


@pytest.mark.parametrize("file", sorted(ROOT.glob("ursa_cli/**/*.py")), ids=lambda f: str(f))
def test_commands_import_heavy_modules_late(file):
    tops = {name.split(".")[0] for name in imports(file, top_level_only=True)}
    assert not tops & set(HEAVY)
    assert "click" not in {name.split(".")[0] for name in imports(file)}


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from ursa_cli.main import main; main(['--help']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_sampling_never_loads_the_clip_renderer():
    code = (
        "import sys; import ursa_core.sampling.generate, ursa_core.bundle.bundle;"
        "import ursa_cli.commands.sample, ursa_core.clips.model;"
        "print('ursa_core.worlds.shapes' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_the_library_loads_its_names_late():
    code = (
        "import sys, ursa_core as ursa; assert ursa.__version__ and 'load' in dir(ursa);"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_loading_a_model_leaves_the_compiler_alone():
    code = (
        "import sys, ursa_core; ursa_core.load('nano', device='cpu', dtype='float32');"
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_no_module_hides_one_of_the_standard_library():
    names = {file.stem for file in MODULES} - {"__init__"}
    assert not names & set(sys.stdlib_module_names)
    assert not names & {"utils", "common", "helpers", "misc"}
