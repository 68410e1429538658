"""The help pages and the translations say what the nodes have: no input forgotten, none made up, no
picture missing."""

import ast
import json
import math
import re
from pathlib import Path

import pytest
import torch

from ddpm_core import NoiseMaps

PACK = Path(__file__).resolve().parents[1]
DOCS, LOCALES = PACK / "web" / "docs", PACK / "locales"
NODES = json.loads((PACK / "tests" / "comfyui" / "golden" / "nodes.json").read_text("utf-8"))
LANGUAGES = sorted({folder.name for folder in LOCALES.iterdir()} | {page.stem for page in DOCS.glob("*/*.md")})
ITEM = re.compile(r"^- \*\*(.+?)\*\*(.*(?:\n  .*)*)", re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
# The latents on the page of Save Noise Maps.
STEPS_OF = {
    "4 x 64 x 64": 100 - 36,
    "4 x 128 x 128": 100 - 36,
    "16 x 13 x 60 x 90": 50,
}
# Which the frontend's translations read as more than text.
MESSAGE_SYNTAX = re.compile(r"[{}@|$]")


def page_path(node, language):
    return DOCS / f"{node}.md" if language == "en" else DOCS / node / f"{language}.md"


def page_text(node, language):
    return page_path(node, language).read_text("utf-8")


def inputs_of(node):
    return {**NODES[node]["input"].get("required", {}), **NODES[node]["input"].get("optional", {})}


def named_in(text):
    """The names of the list items that begin in bold, each of "- **x, y**: ..." for itself."""
    return [name for names, _ in ITEM.findall(text) for name in names.split(", ")]


every_page = pytest.mark.parametrize("language", LANGUAGES)
every_node = pytest.mark.parametrize("node", NODES)


def test_all_pages_belong_to_a_node():
    found = {path.relative_to(DOCS).with_suffix("").as_posix().partition("/")[0] for path in DOCS.rglob("*.md")}
    assert found == set(NODES)


def test_every_node_has_other_names_to_search_it_by():
    """In the source: the ComfyUI of the golden file knows no such names."""
    calls = [call for path in (PACK / "nodes").glob("*.py") for call in ast.walk(ast.parse(path.read_text("utf-8")))]
    schemas = [
        {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        for call in calls
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "io.Schema"
    ]
    named = {ast.literal_eval(schema["node_id"]) for schema in schemas if "search_aliases=" in schema.get(None, "")}
    assert named == set(NODES)


@every_node
@every_page
def test_a_page_names_the_inputs_of_its_node_in_their_order_and_no_others(node, language):
    named = named_in(page_text(node, language))
    assert [name for name in named if name not in NODES[node]["output_name"]] == list(inputs_of(node))


@every_node
@every_page
def test_a_page_says_the_options_as_they_are_on_the_screen(node, language):
    for names, said in ITEM.findall(page_text(node, language)):
        kinds = [inputs_of(node).get(name, ("OUTPUT",)) for name in names.split(", ")]
        options = [option for kind, *spec in kinds if kind == "COMBO" for option in spec[0].get("options", [])]
        assert [option for option in options if option not in said] == [], names


@every_node
def test_a_page_says_the_defaults_that_the_node_has(node):
    for names, said in ITEM.findall(page_text(node, "en")):
        value = re.search(r"default (?P<after>[^);]+)|(?P<before>\S+) \(default\)", said)
        if not value:
            continue
        defaults = [inputs_of(node)[name][1]["default"] for name in names.split(", ")]
        shown = [f"{default:g}" if isinstance(default, (int, float)) else default for default in defaults]
        assert (value["after"] or value["before"]).split(", which")[0] == " and ".join(dict.fromkeys(shown)), names


@every_node
@every_page
def test_a_page_shows_a_picture_that_is_there(node, language):
    """The frontend looks for the pictures of all languages in web/docs itself."""
    pictures = PICTURE.findall(page_text(node, language))
    assert pictures
    assert all(text for text, _ in pictures)
    assert [name for _, name in pictures if not (DOCS / name).is_file()] == []


def test_every_picture_is_on_a_page_and_all_are_small():
    shown = {name for page in DOCS.rglob("*.md") for _, name in PICTURE.findall(page.read_text("utf-8"))}
    files = [path for path in DOCS.rglob("*") if path.is_file() and path.suffix != ".md"]
    assert {path.relative_to(DOCS).as_posix() for path in files} == shown
    assert sum(path.stat().st_size for path in files) < 600_000


@every_page
def test_the_page_of_save_noise_maps_says_what_maps_take(language, tmp_path):
    steps, shape = 200, (1, 4, 32, 32)
    zeros = {name: torch.zeros(count, *shape) for name, count in (("latents", steps + 1), ("predictions", steps))}
    maps = NoiseMaps(
        sigmas=torch.linspace(10, 0, steps + 1), residuals=torch.zeros(steps, *shape, dtype=torch.float64), **zeros
    )
    taken = []
    for half in (False, True):
        maps.save(tmp_path / "maps.safetensors", half=half)
        taken.append((tmp_path / "maps.safetensors").stat().st_size / (steps * math.prod(shape)))
    said = re.findall(
        r"(\d+(?: x \d+){2,})[^\n]*?([\d.]+) ([MG])B[^\n]*?([\d.]+) ([MG])B", page_text("SaveNoiseMaps", language)
    )
    assert [latent for latent, *_ in said] == list(STEPS_OF)
    for latent, *sizes in said:
        values = STEPS_OF[latent] * math.prod(map(int, latent.split(" x ")))
        numbers = [float(number) * {"M": 1e6, "G": 1e9}[unit] for number, unit in zip(sizes[::2], sizes[1::2])]
        assert numbers == pytest.approx([values * a_value for a_value in taken], rel=0.02), latent


def locale(language, name):
    return json.loads((LOCALES / language / f"{name}.json").read_text("utf-8"))


@every_page
def test_a_language_has_every_node_input_and_output_and_nothing_more(language):
    found = locale(language, "nodeDefs")
    assert set(found) == set(NODES)
    for node, texts in found.items():
        assert set(texts) - {"inputs", "outputs"} == {"display_name", "description"}, node
        assert list(texts.get("inputs", {})) == list(inputs_of(node)), node
        assert list(texts.get("outputs", {})) == [str(i) for i in range(len(NODES[node]["output"]))], node
        for slot in (*texts.get("inputs", {}).values(), *texts.get("outputs", {}).values()):
            assert set(slot) == {"name", "tooltip"}, node  # no options: those stay as they are


def strings(value):
    return [value] if isinstance(value, str) else [text for inner in value.values() for text in strings(inner)]


@every_page
def test_the_frontend_can_read_the_texts_of_a_language(language):
    texts = strings(locale(language, "nodeDefs")) + strings(locale(language, "main"))
    assert all(text.strip() for text in texts)
    assert [text for text in texts if MESSAGE_SYNTAX.search(text)] == []


@every_page
def test_a_language_has_the_names_of_the_menu(language):
    assert set(locale(language, "main")["nodeCategories"]) == {
        part for node in NODES.values() for part in node["category"].split("/")
    }


def test_english_is_what_the_nodes_say_themselves():
    for node, texts in locale("en", "nodeDefs").items():
        said = NODES[node]
        assert (texts["display_name"], texts["description"]) == (said["display_name"], said["description"]), node
        for name, slot in texts.get("inputs", {}).items():
            assert slot == {"name": name, "tooltip": inputs_of(node)[name][1]["tooltip"]}, f"{node}.{name}"
        for slot, name, tooltip in zip(texts.get("outputs", {}).values(), said["output_name"], said["output_tooltips"]):
            assert slot == {"name": name, "tooltip": tooltip}, f"{node}.{name}"


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_another_language_is_translated(language):
    english, found = locale("en", "nodeDefs"), locale(language, "nodeDefs")
    for node in NODES:
        assert found[node]["description"] != english[node]["description"], node
        for part in ("inputs", "outputs"):
            for name, slot in found[node].get(part, {}).items():
                assert slot["tooltip"] != english[node][part][name]["tooltip"], f"{node}.{name}"
        assert page_text(node, language).splitlines()[0] != page_text(node, "en").splitlines()[0], node
