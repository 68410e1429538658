"""Between ComfyUI and the core."""
