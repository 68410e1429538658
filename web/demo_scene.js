/**
 * DrawDemoScene: what the run said that the picture shows, in every text that the caption is
 * connected to, where ComfyUI shows the words of before.
 */
export function showCaption(node) {
  const { onExecuted } = node;
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    if (!output.caption) return;
    for (const id of this.outputs.find((slot) => slot.name === "caption")?.links ?? []) {
      const link = this.graph.getLink(id);
      const target = link && this.graph.getNodeById(link.target_id);
      const name = target?.inputs[link.target_slot].widget?.name;
      const text = target?.widgets?.find((widget) => widget.name === name);
      if (text) text.value = output.caption.join("");
    }
  };
}
