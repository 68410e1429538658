"""The ComfyUI nodes, one technique a file. The only package that imports ComfyUI."""

from . import color_mask, demo, edit, invert, shift

NODES = [*invert.NODES, *edit.NODES, *shift.NODES, *color_mask.NODES, *demo.NODES]
