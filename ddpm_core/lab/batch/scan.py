"""``python -m ddpm_core manifest``: a manifest of the pictures in a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..options import check_prompt


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="the folder of the pictures, with the folders in it")
    add("--source", default="", help="what every picture shows (default: no prompt)")
    add("--target", action="append", required=True, help="what it shall show; several times for several edits")
    add("--out", type=Path, default=Path("set.yaml"), help="the manifest to write (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Write a manifest of the pictures in a folder, in the order of their names; where a text file lies
    beside a picture (cat.txt beside cat.jpg), it is the picture's source prompt."""
    if not args.folder.is_dir():
        raise ValueError(f"the folder of the pictures must be one; got {args.folder}.")
    for option, prompts in (("--source", [args.source]), ("--target", args.target)):
        for prompt in prompts:
            check_prompt(option, prompt)
    if args.out.exists():
        raise ValueError(f"--out must be a new file; {args.out} is there already.")
    pictures = pictures_in(args.folder)
    if not pictures:
        raise ValueError(f"{args.folder} must hold pictures (.png, .jpg, ...); it has none.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8") as file:
        for path in pictures:
            file.write(entry_text(str(path.resolve()), _caption(path) or args.source, args.target))
    print(f"{len(pictures)} pictures: {args.out}")


def pictures_in(folder: Path) -> list[Path]:
    """The picture files below a folder, by their endings."""
    from PIL import Image

    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN} - {".pdf"}
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())


def entry_text(image: str, source: str, targets: list[str]) -> str:
    """An entry of a manifest; JSON's texts are YAML's."""
    image, source, *targets = (json.dumps(text) for text in (image, source, *targets))
    lines = "".join(f"    - {target}\n" for target in targets)
    return f"- init_img: {image}\n  source_prompt: {source}\n  target_prompts:\n{lines}"


def _caption(path: Path) -> str:
    """What stands beside a picture, as data sets for training have it."""
    beside = path.with_suffix(".txt")
    return " ".join(beside.read_text("utf-8").split()) if beside.is_file() else ""
