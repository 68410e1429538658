"""A node pack of the tests, beside ours in custom_nodes: workflows' usual company, and nodes that
fail. Its package is called `nodes` too."""

from .nodes import NODE_CLASS_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS"]
