"""The last lines of a run: what was not tested is said in red, whatever the reason."""

from types import SimpleNamespace

import pytest

from tests.comfyui.rig import browser, server, summary


class Reporter:
    """What pytest_terminal_summary is given, with the lines that it was told to write."""

    def __init__(self, **stats):
        self.stats, self.lines = stats, []

    def write_sep(self, sep, title, **markup):
        self.lines.append((title, {name for name, chosen in markup.items() if chosen} - {"bold"}))


def report(*needs, reason=None):
    """A test's report, with what the test needed and why it was skipped."""
    properties = [("needs", name) for name in needs]
    return SimpleNamespace(user_properties=properties, longrepr=("test.py", 3, f"Skipped: {reason}"))


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """A machine with ComfyUI and a browser; {module: reason why not} takes them away."""
    absent = {}
    monkeypatch.setattr(server, "find_comfyui", lambda: (tmp_path, "here"))
    monkeypatch.setattr(server, "why_not", lambda: absent.get("server"))
    monkeypatch.setattr(browser, "why_not", lambda: absent.get("browser"))
    monkeypatch.setattr(browser, "find_chromium", lambda: "/bin/chromium")
    return absent


def written(**stats):
    reporter = Reporter(**stats)
    summary.write(reporter)
    return reporter.lines


def test_what_ran_is_green(tmp_path):
    lines = written(passed=[report("server"), report("server", "page"), report()], failed=[report("server")])
    assert lines == [
        (f"COMFYUI: 3 tests ran against ComfyUI of unknown version at {tmp_path}", {"green"}),
        ("COMFYUI'S FRONTEND: 1 test ran against it in /bin/chromium", {"green"}),
    ]


def test_a_run_without_comfyui_says_so_once_and_in_red(here):
    here["server"] = "there is none"
    skipped = [
        report("server", reason="COMFYUI NOT TESTED: there is none"),
        report("server", "page", reason="COMFYUI NOT TESTED: there is none"),
    ]
    lines = written(skipped=skipped)
    assert [markup for _, markup in lines] == [{"red"}, {"red"}]
    assert all("NOT TESTED: there is none; run make comfyui" in title for title, _ in lines)


def test_a_run_without_a_browser_says_so_in_red(here):
    here["browser"] = "there is none"
    lines = written(passed=[report("server")], skipped=[report("server", "page", reason="x")])
    assert lines[1] == (f"COMFYUI'S FRONTEND: NOT TESTED: there is none; {summary.HOW_TO_BROWSER}", {"red"})


def test_what_else_was_not_tested_is_red_beside_what_ran(monkeypatch):
    monkeypatch.setattr(server, "lacks_matplotlib", lambda python: True)
    with pytest.raises(pytest.skip.Exception) as skip:
        summary.skip_without_matplotlib("its python")
    reason = skip.value.msg
    assert "its python has no matplotlib" in reason
    skipped = [
        report("server", reason=reason),
        report("server", reason=reason),
        report("server", reason="a new frontend"),
    ]
    lines = written(passed=[report("server")], skipped=skipped)
    assert lines[1:] == [(f"{reason} (2 tests)", {"red"})]


def test_errors_before_any_test_ran_are_red():
    [(title, markup)] = written(error=[report("server")])
    assert title == "COMFYUI: NOT TESTED: see the errors above"
    assert markup == {"red"}


def test_a_run_of_other_tests_says_nothing():
    assert written(passed=[report()], skipped=[report(reason="no CUDA")]) == []
