import { addElement, endStep, onChange, setWidget, widgetOf } from "./widgets.js";

const context = document.createElement("canvas").getContext("2d");

/** "#rrggbb" from what the node reads as a colour, or null: a canvas keeps its own where it cannot. */
function parseColor(text) {
  const written = String(text).trim().replace(/^(?=([0-9a-f]{3}|[0-9a-f]{6})$)/i, "#");
  const [one, other] = ["#000000", "#ffffff"].map((before) => {
    context.fillStyle = before;
    context.fillStyle = written;
    return context.fillStyle;
  });
  return one === other && one.startsWith("#") ? one : null;
}

/** ColorMaskEdit: the browser's colour control, bound both ways to the text widget `color`. */
export function addColorControl(node) {
  const text = widgetOf(node, "color");
  const box = document.createElement("div");
  const swatch = document.createElement("label");
  const input = document.createElement("input");
  input.type = "color";
  const shape = { display: "block", height: "100%", margin: "0 auto", borderRadius: "10px", boxSizing: "border-box" };
  Object.assign(swatch.style, { ...shape, cursor: "pointer", pointerEvents: "auto" });
  box.style.pointerEvents = "none"; // beside the bar, clicks are for the text below
  Object.assign(input.style, { width: "100%", height: "100%", opacity: "0", cursor: "inherit" });
  swatch.append(input);
  box.append(swatch);

  /** Where the canvas draws the widgets it lies on its text; the places of Nodes 2.0 are not known here. */
  function place() {
    const up = LiteGraph.vueNodesMode ? 0 : widgetOf(node, "pick_color")?.y - text.y;
    box.style.transform = up > 0 ? `translateY(${-up}px)` : "";
    swatch.style.width = up > 0 ? "30%" : "100%";
  }

  function follow() {
    place();
    const color = parseColor(text.value);
    if (color) input.value = color;
    input.disabled = Boolean(text.computedDisabled);
    input.setAttribute("aria-invalid", String(!color));
    swatch.style.background = input.value;
    swatch.style.border = color ? "1px solid var(--border-color)" : "2px dashed #e5484d";
    swatch.title = color ? "Pick the colour" : `"${text.value}" is not a colour: write #rrggbb or a name, or pick one here`;
  }

  input.addEventListener("input", () => setWidget(text, input.value));
  input.addEventListener("change", () => {
    endStep();
    input.blur(); // in a focused input ComfyUI leaves Ctrl+Z to the browser
  });
  addElement(node, "pick_color", box, { getMinHeight: () => 26, getMaxHeight: () => 26, onDraw: follow });
  onChange(node, ["color"], follow);
}
