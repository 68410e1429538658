/** What the added widgets share. */
import { app } from "../../scripts/app.js";

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/**
 * Put an element at the end of a node, left out of workflows and prompts. `onDraw` runs whenever
 * the canvas draws the node.
 */
export function addElement(node, name, element, options) {
  // As wide as the node's other widgets.
  Object.assign(element.style, { boxSizing: "border-box", padding: "3px 15px" });
  const widget = node.addDOMWidget(name, name, element, { margin: 0, serialize: false, ...options });
  widget.serialize = false; // `options.serialize` is about prompts, this about workflows
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
}

/**
 * Run now, and when these widgets, the links or the saved values of the node change, or it has run:
 * with Nodes 2.0 there is no `onDraw`.
 */
export function onChange(node, names, run) {
  const callbacks = names.map((name) => [widgetOf(node, name), "callback"]);
  const hooks = ["onConnectionsChange", "onConfigure", "onExecuted"].map((name) => [node, name]);
  for (const [owner, name] of [...callbacks, ...hooks]) {
    const before = owner[name];
    owner[name] = function (...values) {
      const answer = before?.apply(this, values);
      // Older frontends do it whenever they draw, and have no such method.
      node.updateComputedDisabled?.();
      run();
      return answer;
    };
  }
  run();
}

/** Set a widget as a person would, unless something is connected to it. */
export function setWidget(widget, value) {
  if (widget.computedDisabled || widget.value === value) return;
  widget.value = value;
  widget.callback?.(value);
  app.canvas.setDirty(true, true);
}

/** Make what was done so far one step for undo. */
export function endStep() {
  app.canvas.emitBeforeChange();
  app.canvas.emitAfterChange();
}

export function showError(summary, detail) {
  app.extensionManager.toast.add({ severity: "error", summary, detail, life: 10000 });
}
