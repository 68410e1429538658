"""ComfyUI node pack: editing real pictures through edit-friendly noise maps (arXiv 2304.06140)."""

WEB_DIRECTORY = "./web"  # the browser script, and the nodes' help pages


async def comfy_entrypoint():
    """What ComfyUI calls to get the pack's nodes."""
    from comfy_api.latest import ComfyExtension

    from .nodes import NODES

    class EditFriendlyExtension(ComfyExtension):
        async def get_node_list(self):
            return list(NODES)

    return EditFriendlyExtension()
