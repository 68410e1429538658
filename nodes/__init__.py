"""The ComfyUI nodes, one technique a file. The only package that imports ComfyUI."""

from . import color_mask, demo, edit, grid, invert, metrics, shift, stats

NODES = [*invert.NODES, *edit.NODES, *grid.NODES, *shift.NODES, *color_mask.NODES, *stats.NODES, *metrics.NODES, *demo.NODES]
