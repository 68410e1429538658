"""What a run says at its end: what was tested against which ComfyUI and browser, in green, and what
could not be tested, in red."""

import pytest

from tests.comfyui.rig import browser, server

HOW_TO_COMFYUI = "run make comfyui, or set COMFYUI_PATH and COMFYUI_PYTHON"
HOW_TO_BROWSER = "pip install playwright, and apt-get install chromium (or set CHROMIUM)"
UNTESTED = "NOT TESTED: "  # in the reason of a skip that the summary has to tell


def skip_without_matplotlib(python):
    """Skip a test that draws with this Python, and have the summary say so."""
    if server.lacks_matplotlib(python):
        how = "install the pack's requirements.txt there"
        pytest.skip(f"NOISE MAP STATS {UNTESTED}{python} has no matplotlib; {how}")


def note_needs(item):
    """Mark what a test needs, where the summary finds it in the reports."""
    item.user_properties += [
        ("needs", name) for name in ("server", "page") if name in getattr(item, "fixturenames", ())
    ]


def count(stats, need):
    """How many tests with this need ran, and how many were collected to run."""
    reports = {
        outcome: [
            report for report in stats.get(outcome, []) if ("needs", need) in getattr(report, "user_properties", [])
        ]
        for outcome in ("passed", "failed", "error", "skipped")
    }
    ran = len(reports["passed"]) + len(reports["failed"])
    return ran, sum(map(len, reports.values()))


def untested_parts(stats):
    """{reason: number of tests} of what was skipped for want of something else than ComfyUI and the
    browser."""
    parts = {}
    for report in stats.get("skipped", []):
        reason = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if UNTESTED in reason and not reason.startswith("COMFYUI"):
            parts[reason] = parts.get(reason, 0) + 1
    return parts


def tests(number):
    return f"{number} test{'s' * (number != 1)}"


def write(reporter):
    comfy, _ = server.find_comfyui()
    no_server, no_browser = server.why_not(), browser.why_not()
    where = f"ComfyUI {server.comfyui_version(comfy)} at {comfy}" if comfy else ""
    how_to_page = HOW_TO_COMFYUI if no_server else HOW_TO_BROWSER
    for title, need, place, reason, how in (
        ("COMFYUI", "server", where, no_server, HOW_TO_COMFYUI),
        ("COMFYUI'S FRONTEND", "page", f"it in {browser.find_chromium()}", no_server or no_browser, how_to_page),
    ):
        ran, known = count(reporter.stats, need)
        if ran:
            reporter.write_sep("=", f"{title}: {tests(ran)} ran against {place}", green=True, bold=True)
        elif known:
            said = f"{reason}; {how}" if reason else "see the errors above"
            reporter.write_sep("=", f"{title}: {UNTESTED}{said}", red=True, bold=True)
    for reason, number in untested_parts(reporter.stats).items():
        reporter.write_sep("=", f"{reason} ({tests(number)})", red=True, bold=True)
