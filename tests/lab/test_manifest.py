"""Manifests: the authors' own shape, where pictures are looked for, and what is no entry."""

import re

import pytest
from PIL import Image

from ddpm_core.lab.batch.manifest import read_manifest


@pytest.fixture
def home(tmp_path):
    """A folder with a picture."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "star.png")
    return tmp_path


def parse(home, text):
    (home / "m.yaml").write_text(text, encoding="utf-8")
    return read_manifest(home / "m.yaml")


def test_the_authors_own_shape_is_read(home):
    """Paths with a leading slash, and a picture without a source prompt, are in the authors' files
    and code."""
    text = """\
  -
    init_img:  /pictures/star.png
    target_prompts:
    - a  photo
    - a photo

  -
    init_img: ./pictures/star.png
    source_prompt: a star
    target_prompts: a moon
    mask: 3
"""
    entries, broken, unknown = parse(home, text)
    assert [(e.line, e.name, e.source, e.targets) for e in entries] == [
        (2, "/pictures/star.png", "", ("a photo",)),
        (8, "./pictures/star.png", "a star", ("a moon",)),
    ]
    assert all(e.image.samefile(home / "pictures" / "star.png") for e in entries)
    assert (broken, unknown) == ([], ["mask"])


def test_pictures_are_looked_for_beside_the_manifest_then_in_the_current_folder(home, monkeypatch):
    (home / "elsewhere" / "pictures").mkdir(parents=True)
    monkeypatch.chdir(home / "elsewhere")
    for name in ("star", "other"):
        Image.new("RGB", (8, 8)).save(f"pictures/{name}.png")
    text = "".join(f"- {{init_img: ./pictures/{name}.png, target_prompts: x}}\n" for name in ("star", "other"))
    (star, other), _, _ = parse(home, text)
    assert star.image.samefile(home / "pictures" / "star.png")
    assert other.image.samefile("pictures/other.png")


def test_broken_entries_are_named_with_their_lines_and_the_others_read(home):
    text = """\
- a photo
- source_prompt: x
  target_prompts: [y]
- init_img: pictures/star.png
- source_prompt: x
  target_prompts: [y]
  init_img: pictures/moon.png
- {init_img: pictures/star.png, target_prompts: good}
- init_img: pictures/star.png
  source_prompt: [x]
  target_prompts: y
- init_img: pictures/star.png
  target_prompts:
    - yes
- init_img: pictures/star.png
  target_prompts: {a: b}
- init_img: pictures/star.png
  target_prompts: []
- !!python/object:x {}
- {? [a] : b}
- {init_img: pictures/star.png, target_prompts: "\\ud800"}
- {init_img: pictures/star.png, target_prompts: !!bool maybe}
- {init_img: pictures/star.png, target_prompts: !!timestamp x}
- {init_img: pictures/star.png, target_prompts: !!int ''}
- {init_img: pictures/star.png, target_prompts: DEEP}
- {init_img: pictures/star.png, target_prompts: &again [*again]}
- {init_img: pictures/star.png, target_prompts: good too}
""".replace("DEEP", 2000 * "[" + 2000 * "]")
    entries, broken, _ = parse(home, text)
    assert [entry.targets for entry in entries] == [("good",), ("good too",)]
    expected = [
        (1, r"got 'a photo' \(str\)"),
        (2, "must have init_img; it has source_prompt, target_prompts"),
        (4, "must have target_prompts; it has init_img"),
        (7, "pictures/moon.png is not there"),
        (10, r"source_prompt must be text; got \['x'\] \(list\)"),
        (14, r"target_prompts must be text; got True \(bool\) \(quote it\)"),
        (16, "must be a text or a list of texts"),
        (18, r"must be a text or a list of texts; got \[\]"),
        (19, "could not determine a constructor"),
        (20, "found unhashable key"),
        (21, "surrogates not allowed"),
        (22, "reading it failed: KeyError: 'maybe'"),
        (23, "reading it failed: AttributeError"),
        (24, "must be YAML|invalid literal|index out of range"),
        (25, "could not determine a constructor for the tag '!deeper-than-16-levels'"),
        (26, "found unconstructable recursive node"),
    ]
    assert [line for line, _ in broken] == [line for line, _ in expected]
    for (_, what), (_, words) in zip(broken, expected):
        assert re.search(words, what), what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("init_img: x\n", r"m.yaml, line 1: a manifest is a YAML list.*got a mapping \(is the '-'"),
        ("\n\nhello\n", "m.yaml, line 3: .*got a single value"),
        ("", "m.yaml, line 1: .*got nothing"),
        ("[]", "m.yaml, line 1: .*got nothing"),
        ("- init_img: x\n- target_prompts: a: b\n", "m.yaml, line 2: .*mapping values are not allowed here"),
        ("- [\n", "m.yaml, line 2: .*this is no YAML"),
        ("- \x00", "m.yaml: .*this is no YAML: .*special characters are not allowed"),
    ],
)
def test_a_file_that_is_no_yaml_list_is_refused_with_its_line(home, text, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        parse(home, text)
