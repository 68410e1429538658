"""Who imports whom: a module imports what lies below it, and the core needs torch alone."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "__init__.py", *sorted((ROOT / "nodes").rglob("*.py")), *sorted((ROOT / "ddpm_core").rglob("*.py"))]

# From the ground up; what stands on one floor does not import each other. "" is the core's face.
FLOORS = [
    {"checks"},
    {"steps"},
    {"plan"},
    {"noise"},
    {"denoise"},
    {"guidance", "attention"},
    {"maps_file"},
    {"maps"},
    {"inversions", "edits"},
    {"replay", "regions"},
    {""},
    {"models", "measure", "demo"},
    {"lab"},
    {"__main__"},
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
CORE = {name for names in FLOORS[: FLOOR_OF[""] + 1] for name in names}
# Inside functions: safetensors where files are read and written, Pillow for the names of colours.
CORE_NEEDS = {"torch", "safetensors", "PIL"}
COMFY = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server"}


def name_of(source: Path) -> str:
    """The module's name from the repository's root: "ddpm_core.edits.flip"; a package's is its
    folder's."""
    parts = source.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(source): source for source in SOURCES}


def imports(source: Path) -> set[str]:
    """All that a file imports anywhere in it, by full names; of ours the modules."""
    package = source.relative_to(ROOT).parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            submodules = {f"{base}.{alias.name}" for alias in node.names} & set(MODULES)
            names.update(submodules)
            if len(submodules) < len(node.names):
                names.add(base)
    return names


GRAPH = {name: imports(source) for name, source in MODULES.items()}
FOREIGN = {
    name: {top for top in (other.partition(".")[0] for other in others)} - {"", "nodes", "ddpm_core"}
    for name, others in GRAPH.items()
}
OURS = [name for name in MODULES if name.partition(".")[0] == "ddpm_core"]


def room(name: str) -> str:
    """A module's place in the core: "ddpm_core.edits.flip" is in "edits", the core's face in ""."""
    return [*name.split("."), ""][1]


def imported(names: list[str], rule) -> list[str]:
    """What these modules import of ours against a rule, as "who: whom"."""
    return [f"{name}: {other}" for name in names for other in sorted(GRAPH[name] & set(OURS)) if rule(name, other)]


def test_every_room_has_its_floor():
    assert {room(name) for name in OURS} == set(FLOOR_OF)


def test_nothing_is_imported_upward_and_side_by_side_only_in_one_folder():
    def upward(name, other):
        return room(other) != room(name) and FLOOR_OF[room(other)] >= FLOOR_OF[room(name)]

    assert imported(OURS, upward) == []


def test_no_import_goes_in_a_circle():
    order = TopologicalSorter({name: others & set(MODULES) for name, others in GRAPH.items()}).static_order()
    assert set(order) == set(MODULES)


def test_the_lab_is_imported_by_itself_alone():
    """``__main__`` names the lab's commands in words, and imports the one that is asked for."""
    others = [name for name in MODULES if name not in OURS or room(name) != "lab"]
    assert imported(others, lambda name, other: room(other) == "lab") == []


def test_nodes_import_neither_the_lab_nor_the_models():
    nodes = [name for name in MODULES if name not in OURS]
    assert imported(nodes, lambda name, other: room(other) in ("lab", "models")) == []


def test_the_core_imports_no_host():
    known = CORE_NEEDS | sys.stdlib_module_names
    assert {name: FOREIGN[name] - known for name in OURS if room(name) in CORE and FOREIGN[name] - known} == {}


def test_comfy_is_imported_in_nodes_only():
    assert [name for name in OURS if FOREIGN[name] & COMFY] == []


def printed(code: str) -> list[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_a_bare_import_brings_torch_alone():
    code = """
import sys, torch
before = set(sys.modules)
import ddpm_core
print(*set(sys.modules) - before)
"""
    brought = [name for name in printed(code) if name.partition(".")[0] not in sys.stdlib_module_names]
    assert "ddpm_core.replay" in brought
    assert {name.partition(".")[0] for name in brought} == {"ddpm_core"}
    assert {room(name) for name in brought} <= CORE


def test_the_command_line_imports_the_command_that_is_asked_for():
    code = """
import sys
from ddpm_core.__main__ import COMMANDS, parser
print(*(name for name in sys.modules if name.startswith("ddpm_core.lab")), "then")
parser("edit")
print(*(name for name in COMMANDS if f"ddpm_core.{COMMANDS[name][0]}" in sys.modules))
"""
    assert printed(code) == ["then", "edit"]
