"""Before a release: refuse what is not filled in yet; print what CHANGELOG.md says of the version.
Run it in the repository's folder."""

import re
import sys
from pathlib import Path

import tomllib

NEEDED = {
    ("project", "urls"): ("Repository", "Documentation", "Bug Tracker"),
    ("tool", "comfy"): ("PublisherId", "DisplayName", "Icon", "Banner"),
}


def main() -> None:
    config = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    problems = []
    for (table, part), keys in NEEDED.items():
        values = config[table].get(part, {})
        problems += [f"pyproject.toml: {key} in [{table}.{part}] is empty" for key in keys if not values.get(key)]
    version = config["project"]["version"]
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d\n"
    changes = re.search(
        rf"{heading}(.*?)(?=^## |\Z)", Path("CHANGELOG.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    if not changes:
        problems.append(f"CHANGELOG.md: there is no heading '## {version} - YYYY-MM-DD'")
    if problems:
        sys.exit("\n".join(f"::error::{problem}; see 'A release' in CONTRIBUTING.md" for problem in problems))
    print(changes[1].strip())


if __name__ == "__main__":
    main()
