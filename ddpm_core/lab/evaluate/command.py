"""``python -m ddpm_core evaluate``: edits every picture of a manifest by every prompt, and measures
the edits (paper section 4, table 1)."""

from __future__ import annotations

import argparse
import csv
import hashlib
import html
import itertools
import json
import math
import re
import reprlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...denoise import ran_out_of_memory
from ...inversions.choice import INVERSIONS, invert_by
from ...maps import NoiseMaps
from ...measure.metrics import psnr, ssim
from ...measure.perceptual import Unavailable, load_clip, load_lpips
from ...measure.pictures import load_picture, to_image
from ...plan import Plan
from ...replay import replay
from ...steps import Solver
from ..options import add_inversion_options, add_model_options, check_device, fill_in, load_model, side_of

if TYPE_CHECKING:
    from ...models.stable_diffusion import Pipeline

KEYS = ("init_img", "source_prompt", "target_prompts")
METRICS = {
    "lpips": ("LPIPS", ".3f", "distance of the edit from its source picture, AlexNet; lower keeps more"),
    "clip": (
        "CLIP score",
        ".2f",
        "100 times the cosine similarity of the edit and its target prompt; higher follows the prompt better",
    ),
    "psnr": ("PSNR, dB", ".2f", "between the edit and its source picture; higher keeps more"),
    "ssim": ("SSIM", ".3f", "between the edit and its source picture; higher keeps more"),
    "diversity": (
        "diversity",
        ".3f",
        "mean LPIPS between the edits of a picture and prompt by different seeds; one figure for each, in the row of the last seed",
    ),
    "seconds_inversion": (
        "seconds to invert",
        ".2f",
        "from the source picture to its maps: autoencoder, source prompt, model; once for all prompts of a picture and seed",
    ),
    "seconds_edit": (
        "seconds to edit",
        ".2f",
        "from the maps to the edited picture: target prompt, model, autoencoder",
    ),
}
ERRORS = "The standard error takes the edits of one picture as one group."
TIMES = "Loading the model, reading and writing files and the metrics are in neither time; a first picture on a GPU includes its warming up."
COLUMNS = (
    "image",
    "source_prompt",
    "target_prompt",
    "seed",
    *METRICS,
    "picture",
)  # picture last: a row cut short has no whole one
STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #8888; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 90rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.05rem; margin: 0; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: 1rem; }
section > p { margin: .1rem 0 .8rem; opacity: .75; }
.sheet { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(47%, 14rem), 1fr)); }
figure { border: 1px solid var(--line); border-radius: .5rem; margin: 0; overflow: hidden; }
figure.source { border-color: var(--quiet); border-style: dashed; }
figure img { display: block; height: auto; width: 100%; }
figcaption { padding: .6rem .75rem .7rem; }
small { display: block; opacity: .65; }
details { margin-top: .75rem; }
summary { cursor: pointer; opacity: .75; }
dl { display: grid; font-size: .85rem; font-variant-numeric: tabular-nums; gap: 0 .5rem; grid-template-columns: 1fr auto; margin: .4rem 0 0; }
dt { opacity: .65; }
dd { margin: 0; text-align: right; white-space: nowrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid var(--line); overflow-wrap: normal; padding: .3rem 0 .3rem 1.25rem; text-align: right; }
td:first-child, th:first-child { padding-left: 0; text-align: left; }
"""


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


def read_manifest(path: Path) -> tuple[list[Entry], list[tuple[int, str]], list[str]]:
    """The entries of a manifest, the broken ones as (line, what is wrong), and the keys that
    nothing reads.

    A manifest has the shape of the authors' test.yaml: a list of ``init_img``, ``source_prompt``
    (missing or empty: no prompt) and ``target_prompts`` (a list, or one text). Raises OSError, or
    ValueError for a file that is no YAML list.
    """
    import yaml

    shape = "a manifest is a YAML list of entries with init_img, source_prompt and target_prompts"
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        line, what = _problem(error)
        raise ValueError(f"{path}{f', line {line}' if line else ''}: {shape}; this is no YAML: {what}.") from error
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        line = root.start_mark.line + 1 if root else 1
        kind = {
            yaml.ScalarNode: "a single value",
            yaml.MappingNode: "a mapping (is the '-' before the entry missing?)",
        }.get(type(root), "nothing")
        raise ValueError(f"{path}, line {line}: {shape}; got {kind}.")
    entries, broken, unknown = [], [], {}
    for node in root.value:
        lines = (
            {str(key.value): value.start_mark.line + 1 for key, value in node.value}
            if isinstance(node, yaml.MappingNode)
            else {}
        )
        line = node.start_mark.line + 1
        try:
            value = loader.construct_object(node, deep=True)
            entries.append(_entry(value, line, lines, path.parent))
            unknown.update(dict.fromkeys(str(key) for key in value if key not in KEYS))
        except _Broken as error:
            broken.append(error.args)
        except yaml.YAMLError as error:
            broken.append(_problem(error))
        except (ValueError, OSError) as error:
            broken.append((line, str(error)))
    return entries, broken, list(unknown)


def _problem(error) -> tuple[int | None, str]:
    """(line, what is wrong) of an error of yaml; some have no line."""
    mark = getattr(error, "problem_mark", None)
    return mark and mark.line + 1, getattr(error, "problem", None) or " ".join(str(error).split())


class _Broken(Exception):
    """(line, what is wrong) of an entry."""


def _entry(value, line: int, lines: dict[str, int], folder: Path) -> Entry:
    if not isinstance(value, dict):
        raise _Broken(line, f"an entry must have init_img, source_prompt and target_prompts; got {_shown(value)}.")

    def text(key: str, item) -> str:
        if not isinstance(item, str):
            raise _Broken(
                lines.get(key, line),
                f"{key} must be text; got {_shown(item)}{' (quote it)' if isinstance(item, (bool, int, float)) else ''}.",
            )
        item.encode()  # a lone surrogate fits into no file: UnicodeEncodeError, a ValueError
        return " ".join(item.split())

    for key in ("init_img", "target_prompts"):
        if key not in value:
            raise _Broken(line, f"the entry must have {key}; it has {', '.join(map(str, value)) or 'nothing'}.")
    name, targets = text("init_img", value["init_img"]), value["target_prompts"]
    targets = [targets] if isinstance(targets, str) else targets
    if not isinstance(targets, list) or not targets:
        raise _Broken(
            lines.get("target_prompts", line),
            f"target_prompts must be a text or a list of texts; got {_shown(targets)}.",
        )
    targets = tuple(dict.fromkeys(text("target_prompts", target) for target in targets))
    source = value.get("source_prompt")
    source = "" if source is None else text("source_prompt", source)
    bare = name.lstrip("/")  # the authors write /example_images/x.jpg and mean ./example_images/x.jpg
    image = next((path for path in (folder / name, Path(name), folder / bare, Path(bare)) if path.is_file()), None)
    if image is None:
        where = " and from ".join(dict.fromkeys(map(str, (folder.resolve(), Path.cwd()))))
        raise _Broken(
            lines.get("init_img", line), f"init_img must be a picture file; {name} is not there (looked from {where})."
        )
    return Entry(line, name, image, hashlib.sha256(image.read_bytes()).hexdigest(), source, targets)


def _shown(value) -> str:
    return "nothing" if value is None else f"{reprlib.repr(value)} ({type(value).__name__})"


def load_metrics(clip: str, device: str) -> tuple[dict[str, Callable[[Tensor, Tensor, str], float]], dict[str, str]]:
    """Functions of (source picture, edit, target prompt), the pictures (1, 3, H, W) in [0, 1]; and
    why each other metric is missing."""
    metrics, missing = {"psnr": lambda source, edited, prompt: psnr(source, edited).item()}, {}
    try:
        import kornia.metrics  # noqa: F401
    except ImportError as error:
        missing["ssim"] = (
            f"SSIM needs the package kornia: install it with `python -m pip install kornia`. Importing it failed: {error}"
        )
    else:
        metrics["ssim"] = lambda source, edited, prompt: ssim(source, edited).item()
    try:
        distance = load_lpips(device)
        metrics["lpips"] = lambda source, edited, prompt: distance(source, edited)
    except Unavailable as error:
        missing["lpips"] = str(error)
    try:
        score = load_clip(clip, device)
        metrics["clip"] = lambda source, edited, prompt: score(edited, prompt)
    except Unavailable as error:
        missing["clip"] = str(error)
    return metrics, missing


def inverter(args: argparse.Namespace, model: Pipeline) -> Callable[[Tensor, str, int], NoiseMaps]:
    """The inversion that the settings name, as a function of (picture (1, 3, H, W), source prompt,
    seed). Raises ValueError for settings that do not fit."""
    plan = Plan(model.sigmas(args.steps), skip=args.skip, eta=args.eta, solver=Solver(args.solver))

    def run(picture: Tensor, prompt: str, seed: int) -> NoiseMaps:
        denoise = (
            None
            if args.inversion == "sdedit"
            else model.denoiser(prompt, guidance=args.cfg_source, negative=args.negative)
        )
        x0 = model.encode(picture).to(args.device)
        return invert_by(args.inversion, denoise, x0, replace(plan, seed=seed), chunk=args.chunk)

    return run


def settings_of(args: argparse.Namespace) -> dict:
    """Everything that is said of a run, as JSON has it; guidance that the inversion does not read
    is None. Raises ValueError for settings that do not fit."""
    if args.inversion in ("ddim", "sdedit") and args.solver != Solver.FIRST_ORDER.value:
        raise ValueError(
            f"--inversion {args.inversion} has --solver {Solver.FIRST_ORDER.value} only; got {args.solver}."
        )
    if args.chunk < 1:
        raise ValueError(f"--chunk must be 1 or more timesteps a call; got {args.chunk}.")
    if args.seeds < 1:
        raise ValueError(f"--seeds must be 1 or more; got {args.seeds}.")
    if args.inversion == "ddim" and args.seeds > 1:
        raise ValueError(
            f"--inversion ddim draws no noise, every seed gives the same edit: --seeds must be 1; got {args.seeds}."
        )
    return {
        "manifest": str(args.manifest.resolve()),
        "model": str(args.model.resolve()) if args.model else "the demo model",
        "config": str(args.config.resolve()) if args.config else None,
        "inversion": args.inversion,
        "steps": args.steps,
        "skip": args.skip,
        "cfg": args.cfg,
        "cfg_source": None if args.inversion == "sdedit" else args.cfg_source,
        "negative": args.negative,
        "eta": 0.0 if args.inversion == "ddim" else args.eta,
        "solver": args.solver,
        "seed": args.seed,
        "seeds": args.seeds,
        "chunk": args.chunk,
        "size": args.size,
        "device": args.device,
        "dtype": args.dtype,
        "clip": args.clip,
    }


class Results:
    """The folder of a run: settings.json, results.csv, edits and sources (PNG), report.md and
    index.html.

    ``rows`` are those of results.csv whose picture is there, by its path; rows of entries that the
    manifest no longer has stay. Raises ValueError for a folder with the results of other settings.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder, self.table, self.rows = folder, folder / "results.csv", {}
        for part in ("edits", "sources"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        if self.table.exists():
            with self.table.open(newline="", encoding="utf-8", errors="replace") as file:
                rows = [row for row in csv.DictReader(file) if row.get("picture")]
            self.rows = {row["picture"]: row for row in rows if (folder / row["picture"]).is_file()}
            self._compare(settings)
        (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _compare(self, settings: dict) -> None:
        kept = self.folder / "settings.json"
        try:
            earlier = json.loads(kept.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.folder} has a results.csv, but its settings.json cannot be read ({error}): give another --out."
            ) from error
        scored = any(row["clip"] for row in self.rows.values())
        for name, value in settings.items():
            if name in ("manifest", "chunk"):  # a row knows its picture and prompts, and the chunk changes no picture
                continue
            if earlier.get(name) != value and self.rows and (name != "clip" or scored):
                option, old = "--" + name.replace("_", "-"), earlier.get(name)
                raise ValueError(
                    f"{self.folder} holds results with {option} {old!r}; got {value!r}. Give the same setting, or another --out."
                )

    def add(self, row: dict[str, str]) -> None:
        """A new or changed row; the file is replaced at once, so it is always whole."""
        self.rows[row["picture"]] = row
        part = self.table.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows.values())
        part.replace(self.table)


def run(args: argparse.Namespace) -> None:
    """Edit every picture of a manifest by every target prompt, measure the edits, and write a
    table, a report and a browsable sheet."""
    check_device(args.device)
    fill_in(args)
    settings = settings_of(args)
    entries, broken, unknown = read_manifest(args.manifest)
    results = Results(args.out, settings)
    for line, what in broken:
        print(f"{args.manifest}, line {line}: {what}", file=sys.stderr)
    if unknown:
        print(f"Keys of the manifest that nothing reads: {', '.join(unknown)}", file=sys.stderr)
    metrics, missing = load_metrics(args.clip, args.device)
    for what in missing.values():
        print(f"Left out: {what}", file=sys.stderr)
    if args.seeds == 1 or "lpips" in missing:
        missing["diversity"] = "Diversity needs --seeds 2 or more." if args.seeds == 1 else "Diversity needs LPIPS."
    model = load_model(args)
    run = Run(args, model, inverter(args, model), metrics, results)
    try:
        run.edit_all(entries, broken)
    except KeyboardInterrupt:
        raise ValueError(
            f"interrupted; start the same command again to go on from here. What there is lies in {args.out}."
        ) from None
    finally:
        made = {entry: [row for _, _, path in run.plan(entry) if (row := results.rows.get(path))] for entry in entries}
        rows = list({row["picture"]: row for part in made.values() for row in part}.values())
        planned = len({path for entry in entries for _, _, path in run.plan(entry)})
        (args.out / "report.md").write_text(report(rows, planned, missing, broken, settings), encoding="utf-8")
        (args.out / "index.html").write_text(sheet(made, rows, missing, broken, settings), encoding="utf-8")
    if not rows:
        raise ValueError(f"no edit could be made; see {args.out / 'report.md'} for what was wrong with each entry.")
    for label, mean, error, *_ in summaries(rows):
        print(f"{label:<18} {mean:>8} +- {error}")
    print(f"{len(rows)} edits: {args.out / 'results.csv'}, {args.out / 'report.md'}, {args.out / 'index.html'}")


@dataclass
class Run:
    """One run over a manifest: the settings and what was loaded for them."""

    args: argparse.Namespace
    model: Pipeline
    invert: Callable[[Tensor, str, int], NoiseMaps]
    metrics: dict[str, Callable[[Tensor, Tensor, str], float]]
    results: Results

    def plan(self, entry: Entry) -> list[tuple[int, str, str]]:
        """(seed, target prompt, path of the edit) in the order in which they are made: one
        inversion after the other."""
        seeds = range(self.args.seed, self.args.seed + self.args.seeds)
        return [(seed, target, f"edits/{entry.file(target, seed)}") for seed in seeds for target in entry.targets]

    def wanted(self, seed: int) -> list[str]:
        """The metrics that a row of this seed shall have."""
        last = seed == self.args.seed + self.args.seeds - 1
        return [*self.metrics, *(["diversity"] if last and self.args.seeds > 1 and "lpips" in self.metrics else [])]

    def unfinished(self, entry: Entry) -> set[str]:
        """The paths of the edits that are not made yet, or lack a metric."""
        found = self.results.rows
        return {
            path
            for seed, _, path in self.plan(entry)
            if path not in found or not all(found[path][name] for name in self.wanted(seed))
        }

    def edit_all(self, entries: Sequence[Entry], broken: list[tuple[int, str]]) -> None:
        """Make and measure what is missing; entries that fail are added to ``broken``."""
        every = {path for entry in entries for _, _, path in self.plan(entry)}
        todo = set().union(*map(self.unfinished, entries))
        with tqdm(total=len(every), initial=len(every - todo), unit="edit") as bar:
            for entry in entries:
                if not self.unfinished(entry):
                    continue
                bar.set_description(entry.image.name[:24])
                try:
                    self.edit_one(entry, bar)
                except (ValueError, RuntimeError) as error:
                    if isinstance(error, RuntimeError) and not ran_out_of_memory(error):
                        raise
                    broken.append((entry.line, str(error)))
                    bar.write(f"{self.args.manifest}, line {entry.line}: {error}", file=sys.stderr)
                    bar.total -= len(self.unfinished(entry))
        broken.sort()

    def edit_one(self, entry: Entry, bar) -> None:
        """All prompts and seeds of one picture, with one inversion for the prompts of a seed."""
        source = read_source(entry, side_of(self.args, self.model), self.model.cell)
        to_image(source[0]).save(self.results.folder / "sources" / entry.source_file)
        todo, maps, of_seed = self.unfinished(entry), None, None
        for seed, target, path in self.plan(entry):
            if path not in todo:
                continue
            row = self.results.rows.get(path)
            if row is None:
                if of_seed != seed:
                    start = time.perf_counter()
                    maps, of_seed = self.invert(source, entry.source, seed), seed
                    seconds = time.perf_counter() - start
                start = time.perf_counter()
                denoise = self.model.denoiser(target, guidance=self.args.cfg, negative=self.args.negative)
                image = to_image(self.model.decode(replay(denoise, maps, device=self.args.device))[0])
                row = dict.fromkeys(COLUMNS, "") | {
                    "image": entry.name,
                    "source_prompt": entry.source,
                    "target_prompt": target,
                    "seed": str(seed),
                }
                row |= {
                    "seconds_inversion": f"{seconds:.4g}",
                    "seconds_edit": f"{time.perf_counter() - start:.4g}",
                    "picture": path,
                }
                image.save(self.results.folder / path)
            edited = read_png(self.results.folder / path)
            row |= {
                name: f"{metric(source, edited, target):.6g}" for name, metric in self.metrics.items() if not row[name]
            }
            if "diversity" in self.wanted(seed):
                others = [
                    read_png(self.results.folder / other) for _, words, other in self.plan(entry) if words == target
                ]
                row["diversity"] = f"{self.diversity(others):.6g}"
            self.results.add(row)
            bar.update()

    def diversity(self, edits: Sequence[Tensor]) -> float:
        """Mean LPIPS over the pairs of the edits (1, 3, H, W) of one picture and prompt by several
        seeds (paper section 4)."""
        pairs = list(itertools.combinations(edits, 2))
        return sum(self.metrics["lpips"](one, other, "") for one, other in pairs) / len(pairs)


def read_source(entry: Entry, side: int, cell: int) -> Tensor:
    """The picture of an entry (1, 3, H, W). Raises ValueError for whatever is wrong with the file."""
    try:
        return load_picture(entry.image, side, cell)
    except Exception as error:  # Pillow raises many kinds for foreign files
        raise ValueError(f"init_img {entry.name} cannot be read as a picture: {error}") from error


def read_png(path: Path) -> Tensor:
    """An edit from its file, (1, 3, H, W) in [0, 1]: what is measured is what lies on the disk, in
    this run or a later one."""
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def summary(rows: Sequence[dict[str, str]], name: str) -> tuple[float, float, int]:
    """Mean of a metric over all rows that have it, its standard error, and how many these are; NaN
    where there is none.

    The edits of one picture are alike, so the error counts pictures (a cluster-robust error): with
    C pictures and n rows sqrt(C / (C - 1) sum_c (sum_{i in c} (x_i - mean))^2) / n, which is s /
    sqrt(n) for one row a picture.
    """
    values = [(row["image"], float(row[name])) for row in rows if row[name]]
    if not values:
        return math.nan, math.nan, 0
    mean = sum(value for _, value in values) / len(values)
    sums: dict[str, float] = {}
    for image, value in values:
        sums[image] = sums.get(image, 0.0) + value - mean
    count = len(sums)
    error = math.sqrt(count / (count - 1) * sum(s * s for s in sums.values())) / len(values) if count > 1 else math.nan
    return mean, error, len(values)


def summaries(rows: Sequence[dict[str, str]]) -> list[tuple[str, ...]]:
    """(metric, mean, standard error, number of edits, what it is) of every metric, as text."""
    lines = []
    for name, (label, form, meaning) in METRICS.items():
        mean, error, count = summary(rows, name)
        lines.append((label, *("-" if math.isnan(x) else format(x, form) for x in (mean, error)), str(count), meaning))
    return lines


def report(
    rows: Sequence[dict[str, str]],
    planned: int,
    missing: dict[str, str],
    broken: Sequence[tuple[int, str]],
    settings: dict,
) -> str:
    """The figures of a run in Markdown."""
    lines = [
        "# Evaluation",
        "",
        f"{len(rows)} of {planned} edits, of {len({row['image'] for row in rows})} pictures.",
        "",
    ]
    lines += ["| metric | mean | standard error | edits | what it is |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in summaries(rows)]
    lines += ["", f"{ERRORS} {TIMES}"]
    for title, items in notes(missing, broken, settings):
        lines += ["", f"## {title}", "", *(f"- {item}" for item in items)]
    return "\n".join(lines) + "\n"


def notes(missing: dict[str, str], broken: Sequence[tuple[int, str]], settings: dict) -> list[tuple[str, list[str]]]:
    """What stands below the figures: titles and lists; only what there is."""
    parts = {
        "Missing": list(missing.values()),
        "Broken entries": [f"line {line}: {' '.join(what.split())}" for line, what in broken],
        "Settings": [f"{name}: {'-' if value is None else value}" for name, value in settings.items()],
    }
    return [(title, items) for title, items in parts.items() if items]


def sheet(
    made: dict[Entry, list[dict[str, str]]],
    rows: Sequence[dict[str, str]],
    missing: dict[str, str],
    broken: Sequence[tuple[int, str]],
    settings: dict,
) -> str:
    """The contact sheet: static HTML, links relative to its folder; ``rows`` are those of ``made``,
    each once."""
    text = html.escape
    figures = summaries(rows)
    table = [f"<tr><td>{label}<td>{mean}<td>{error}<td>{count}" for label, mean, error, count, _ in figures]
    meanings = [f"<li>{label}: {meaning}" for label, *_, meaning in figures]
    sections = []
    for entry, part in made.items():
        if not part:
            continue
        prompt = f"<p>{text(entry.source)}</p>" if entry.source else "<p><i>no source prompt</i></p>"
        panels = [figure("sources/" + entry.source_file, "source picture", "", [], ' class="source"')]
        for row in sorted(part, key=lambda row: entry.targets.index(row["target_prompt"])):
            cells = [(label, format(float(row[name]), form)) for name, (label, form, _) in METRICS.items() if row[name]]
            panels.append(figure(row["picture"], row["target_prompt"] or "no prompt", f"seed {row['seed']}", cells))
        sections.append(
            f'<section>\n<h2>{text(entry.name)}</h2>\n{prompt}\n<div class="sheet">\n{"".join(panels)}</div>\n</section>'
        )
    for title, items in notes(missing, broken, settings):
        sections.append(
            f"<section>\n<h2>{title}</h2>\n<ul>{''.join(f'<li>{text(item)}' for item in items)}</ul>\n</section>"
        )
    newline = "\n"  # no backslash may stand in the braces below before Python 3.12
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation</title>
<style>{STYLE}</style>
<h1>Evaluation</h1>
<p>{len(rows)} edits of {len({row["image"] for row in rows})} pictures, by {text(settings["inversion"])} inversion.</p>
<table>
<tr><th>metric<th>mean<th>standard error<th>edits
{newline.join(table)}
</table>
<details><summary>What these figures are</summary>
<ul>
{newline.join(meanings)}
</ul>
<p>{ERRORS} {TIMES}</p></details>
{newline.join(sections)}
</html>
"""


def figure(path: str, title: str, note: str, cells: Sequence[tuple[str, str]], attributes: str = "") -> str:
    """One picture of the sheet with its caption and figures; ``path`` is made of safe characters."""
    figures = "".join(f"<dt>{name}<dd>{value}" for name, value in cells)
    return f"""<figure{attributes}><a href="{path}"><img src="{path}" alt="{html.escape(title)}" loading="lazy"></a>
<figcaption>{html.escape(title)}<small>{note}</small>{f"<dl>{figures}</dl>" if figures else ""}</figcaption></figure>
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Started again with the same settings it goes on where it stopped. Broken entries are listed and left out; "
        "the exit code is 0 if there is at least one edit, else 1."
    )
    add = parser.add_argument
    add(
        "--manifest",
        type=Path,
        required=True,
        help="a YAML list of entries with init_img, source_prompt and target_prompts, as the authors' test.yaml",
    )
    add("--out", type=Path, default=Path("out/evaluate"), help="the folder to write (default: %(default)s)")
    add(
        "--inversion",
        choices=INVERSIONS,
        default=INVERSIONS[0],
        help="ddim has eta 0; sdedit reads no source prompt, its strength is 1 - skip / steps (default: %(default)s)",
    )
    add(
        "--seeds",
        type=int,
        default=1,
        help="seeds a picture, from --seed on; 2 or more give the diversity (default: %(default)s)",
    )
    add(
        "--clip",
        default="openai/clip-vit-base-patch32",
        help="CLIP of the score: a folder of a transformers model, or its name on the hub (default: %(default)s)",
    )
    add_model_options(parser)
    add_inversion_options(parser)
