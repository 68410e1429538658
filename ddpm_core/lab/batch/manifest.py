"""Manifests: a YAML list of pictures with their prompts, in the shape of the authors' test.yaml."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 16  # levels of a manifest: an entry has three
KEYS = ("init_img", "source_prompt", "target_prompts")


@dataclass(frozen=True)
class Entry:
    """One picture of a manifest with its prompts; ``name`` is the picture's path as the manifest
    writes it, ``line`` counts from 1."""

    line: int
    name: str
    image: Path
    digest: str  # of the picture file's bytes
    source: str
    targets: tuple[str, ...]

    def file(self, target: str, seed: int) -> str:
        """The name of an edit's PNG file: another picture, prompt or seed has another name, and the
        same ones find the file again."""
        digest = hashlib.sha256(json.dumps([self.digest, self.source, target, seed]).encode()).hexdigest()[:10]
        return "-".join(part for part in (slug(self.image.stem), slug(target), f"seed{seed}", digest) if part) + ".png"

    @property
    def source_file(self) -> str:
        return "-".join(part for part in (slug(self.image.stem), self.digest[:10]) if part) + ".png"


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text)[:48].strip("-")


class Broken(Exception):
    """(line, what is wrong) of an entry."""


def read_manifest(path: Path) -> tuple[list[Entry], list[tuple[int, str]], list[str]]:
    """The entries of a manifest, the broken ones as (line, what is wrong), and the keys that
    nothing reads.

    A manifest has the shape of the authors' test.yaml: a list of ``init_img``, ``source_prompt``
    (missing or empty: no prompt) and ``target_prompts`` (a list, or one text). Raises OSError, or
    ValueError for a file that is no YAML list.
    """
    import yaml

    loader, nodes = _nodes(path)
    entries, broken, unknown = [], [], {}
    for node in nodes:
        line, lines = node.start_mark.line + 1, {}
        if isinstance(node, yaml.MappingNode):
            lines = {str(key.value): value.start_mark.line + 1 for key, value in node.value}
        try:
            value = loader.construct_object(node, deep=True)
            entries.append(_entry(value, line, lines, path.parent))
            unknown.update(dict.fromkeys(str(key) for key in value if key not in KEYS))
        except Broken as error:
            broken.append(error.args)
        except yaml.YAMLError as error:
            broken.append(_problem(error))
        except (ValueError, OSError) as error:
            broken.append((line, str(error)))
        except Exception as error:  # yaml's own types take anything: !!bool maybe is a KeyError
            broken.append((line, f"the entry must be YAML; reading it failed: {type(error).__name__}: {error}"))
    return entries, broken, list(unknown)


def _nodes(path: Path) -> tuple:
    """The loader of a YAML file, and the nodes of the list that the file is. Raises OSError, or
    ValueError where it is none."""
    import yaml

    shape = "a manifest is a YAML list of entries with init_img, source_prompt and target_prompts"
    try:
        loader = _loader(path.read_bytes())
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        line, what = _problem(error)
        where = f"{path}, line {line}" if line else path
        raise ValueError(f"{where}: {shape}; this is no YAML: {what}.") from error
    if isinstance(root, yaml.SequenceNode) and root.value:
        return loader, root.value
    kinds = {
        yaml.ScalarNode: "a single value",
        yaml.MappingNode: "a mapping (is the '-' before the entry missing?)",
    }
    line = root.start_mark.line + 1 if root else 1
    raise ValueError(f"{path}, line {line}: {shape}; got {kinds.get(type(root), 'nothing')}.")


def _loader(data: bytes):
    """A loader of YAML for which what lies deeper than any entry is a tag that nothing constructs:
    PyYAML goes down by recursion."""
    import yaml

    class Shallow(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent, index):
            if self.depth == DEEPEST and self.check_event(yaml.CollectionStartEvent):
                return self.leave_out()
            self.depth += 1
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def leave_out(self):
            start, left = self.peek_event().start_mark, 0
            while True:
                event = self.get_event()
                left += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if not left:
                    return yaml.ScalarNode(f"!deeper-than-{DEEPEST}-levels", "", start, event.end_mark)

    return Shallow(data)


def _problem(error) -> tuple[int | None, str]:
    """(line, what is wrong) of an error of yaml; a few have no line."""
    mark = getattr(error, "problem_mark", None)
    return mark and mark.line + 1, getattr(error, "problem", None) or " ".join(str(error).split())


def _entry(value, line: int, lines: dict[str, int], folder: Path) -> Entry:
    """An entry from what YAML made of it, with the lines of its values; raises Broken."""
    if not isinstance(value, dict):
        raise Broken(line, f"an entry must have init_img, source_prompt and target_prompts; got {_shown(value)}.")

    def text(key: str, item) -> str:
        if not isinstance(item, str):
            hint = " (quote it)" if isinstance(item, (bool, int, float)) else ""
            raise Broken(lines.get(key, line), f"{key} must be text; got {_shown(item)}{hint}.")
        item.encode()  # a lone surrogate fits into no file: UnicodeEncodeError, a ValueError
        return " ".join(item.split())

    for key in ("init_img", "target_prompts"):
        if key not in value:
            raise Broken(line, f"the entry must have {key}; it has {', '.join(map(str, value)) or 'nothing'}.")
    name, targets = text("init_img", value["init_img"]), value["target_prompts"]
    targets = [targets] if isinstance(targets, str) else targets
    if not isinstance(targets, list) or not targets:
        rule = "target_prompts must be a text or a list of texts"
        raise Broken(lines.get("target_prompts", line), f"{rule}; got {_shown(targets)}.")
    targets = tuple(dict.fromkeys(text("target_prompts", target) for target in targets))
    source = value.get("source_prompt")
    source = "" if source is None else text("source_prompt", source)
    image = _find(name, folder)
    if image is None:
        where = " and from ".join(dict.fromkeys(map(str, (folder.resolve(), Path.cwd()))))
        rule = f"init_img must be a picture file; {name} is not there (looked from {where})"
        raise Broken(lines.get("init_img", line), f"{rule}.")
    return Entry(line, name, image, hashlib.sha256(image.read_bytes()).hexdigest(), source, targets)


def _find(name: str, folder: Path) -> Path | None:
    """A picture file beside the manifest, or else in the current folder."""
    bare = name.lstrip("/")  # the authors write /example_images/x.jpg and mean ./example_images/x.jpg
    places = folder / name, Path(name), folder / bare, Path(bare)
    return next((path.absolute() for path in places if path.is_file()), None)  # a worker may have another folder


def _shown(value) -> str:
    return "nothing" if value is None else f"{reprlib.repr(value)} ({type(value).__name__})"
