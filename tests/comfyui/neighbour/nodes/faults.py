"""Nodes that go wrong on purpose."""

NODES = {}
