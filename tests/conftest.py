"""What every run has: draws that are the same each time, and what it says at its end."""

import pytest
import torch

from tests.comfyui.rig import summary

torch.manual_seed(0)  # of what test files draw when they are read


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


def pytest_itemcollected(item):
    summary.note_needs(item)


def pytest_terminal_summary(terminalreporter):
    summary.write(terminalreporter)
