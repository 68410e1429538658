"""What a run says at its end, whatever it ran."""

from tests.comfyui.rig import summary


def pytest_itemcollected(item):
    summary.note_needs(item)


def pytest_terminal_summary(terminalreporter):
    summary.write(terminalreporter)
