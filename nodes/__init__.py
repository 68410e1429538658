"""The ComfyUI nodes, one technique a file. The only package that imports ComfyUI."""

from . import (
    attention,
    color_mask,
    demo,
    direction,
    edit,
    files,
    flip,
    grid,
    invert,
    masks,
    metrics,
    mix,
    scale,
    several,
    shift,
    stats,
)

_FILES = (
    invert,
    edit,
    several,
    masks,
    attention,
    direction,
    grid,
    shift,
    color_mask,
    mix,
    flip,
    scale,
    files,
    stats,
    metrics,
    demo,
)
NODES = [node for file in _FILES for node in file.NODES]
