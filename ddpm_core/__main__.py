"""Command line: ``python -m ddpm_core`` and the name of a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

COMMANDS = {  # name: (module, what it does); a module has add_options(parser) and run(args)
    "demo": ("lab.demo", "edit a drawn scene with the embedded model and show it"),
    "edit": ("lab.edit", "edit a picture of your own by prompts"),
    "bench": ("lab.bench.command", "measure the methods against each other on scenes whose true edits are known"),
    "speed": ("lab.speed.command", "time an edit beside the authors' way and plain sampling"),
    "batch": ("lab.batch.command", "edit a set of pictures of your own, with one process or many"),
    "manifest": ("lab.batch.scan", "write the manifest of a folder, for batch and evaluate"),
    "evaluate": ("lab.evaluate.command", "edit and measure a set of pictures of your own"),
}


def parser(command: str | None) -> argparse.ArgumentParser:
    """The parser of all commands; only the module of ``command`` is imported, for its options."""
    top = argparse.ArgumentParser(
        prog="python -m ddpm_core", description="Edit pictures through edit-friendly noise maps (arXiv 2304.06140)."
    )
    commands = top.add_subparsers(dest="command", required=True)
    for name, (path, does) in COMMANDS.items():
        if name == command:
            module = import_module(f".{path}", __package__)
            one = commands.add_parser(name, help=does, description=module.run.__doc__)
            module.add_options(one)
            one.set_defaults(run=module.run)
        else:
            commands.add_parser(name, help=does)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if find_spec(".lab", __package__) is None:
        print("error: ComfyUI installs the nodes alone; the commands are in a clone of the repository", file=sys.stderr)
        return 1
    try:
        args = parser(arguments[0] if arguments else None).parse_args(arguments)
        _quieten_libraries()
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        remedy = "install what is missing with: python -m pip install -r requirements.txt"
        print(f"error: {error}; {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; bench, batch and evaluate go on from here when they are started again", file=sys.stderr)
        return 130
    return 0


def _quieten_libraries() -> None:
    """Their notes on optional packages are not for the person who edits a picture."""
    for library in ("transformers.utils.logging", "diffusers.utils.logging", "huggingface_hub.utils.logging"):
        import_module(library).set_verbosity_error()


if __name__ == "__main__":
    sys.exit(main())
