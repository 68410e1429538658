import { app } from "../../scripts/app.js";
import { addElement, endStep, onChange, setWidget, widgetOf } from "./widgets.js";

const CELL = 8; // picture pixels in a latent cell
const CELLS = 64; // across, where nothing tells
const WAY_UP = ["NOISE_MAPS", "LATENT", "IMAGE"]; // the inputs through which the picture came, the nearest first
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const isLoaded = (image) => image?.complete && image.naturalWidth > 0;

/** The picture of an output: on its own node, or on a preview that hangs on it. */
function pictureAt(node, slot) {
  const links = node.outputs[slot]?.links ?? [];
  const previews = links.map((id) => node.graph.getNodeById(node.graph.getLink(id)?.target_id));
  return [node, ...previews].map((shown) => shown?.imgs?.[0]).find(isLoaded);
}

/** The source picture of a node's maps as {image, cells}, `cells` its width in latent cells; nothing where none is to be seen. */
function findPicture(node) {
  let width; // what a node between the picture and the latent scales it to
  for (let steps = 0; node && steps < 100; steps++) {
    const isReroute = node.type === "Reroute";
    const linked = node.inputs?.filter((input) => input.link != null) ?? [];
    const input = isReroute ? linked[0] : WAY_UP.map((type) => linked.find((found) => found.type === type)).find(Boolean);
    const link = input && node.graph.getLink(input.link);
    const origin = link && node.graph.getNodeById(link.origin_id);
    if (!origin) return;
    const image = (isReroute || input.type === "IMAGE") && pictureAt(origin, link.origin_slot);
    if (image) return { image, cells: (width ?? image.naturalWidth) / CELL };
    const set = input.type === "IMAGE" && widgetOf(origin, "width")?.value;
    if (set > 0) width ??= set;
    node = origin;
  }
}

/** ShiftNoise: a pad that shows the picture where x and y move it, and on which it can be dragged. */
export function addShiftPad(node) {
  const [x, y, fill] = ["x", "y", "fill"].map((name) => widgetOf(node, name));
  const box = document.createElement("div");
  const pad = document.createElement("canvas");
  box.tabIndex = 0;
  box.title = "Drag the picture; arrow keys move it by a cell, a double click puts it back";
  Object.assign(box.style, { cursor: "move", touchAction: "none" });
  // Events go to the box: ComfyUI takes every canvas under the mouse for its own and shows tooltips of what lies there.
  Object.assign(pad.style, { width: "100%", height: "100%", display: "block", borderRadius: "4px", pointerEvents: "none" });
  box.append(pad);

  /** The frame of the picture in the pad, in the pad's own pixels. */
  function layout() {
    const { image, cells = CELLS } = findPicture(node) ?? {};
    const rows = image ? (cells * image.naturalHeight) / image.naturalWidth : cells;
    const cell = Math.min(pad.clientWidth / cells, pad.clientHeight / rows);
    const [width, height] = [cells * cell, rows * cell];
    return { image, cells, rows, cell, width, height, left: (pad.clientWidth - width) / 2, top: (pad.clientHeight - height) / 2 };
  }

  function draw() {
    if (!pad.clientWidth || !pad.clientHeight) return;
    const { image, cells, rows, cell, width, height, left, top } = layout();
    const style = getComputedStyle(pad);
    const sharpness = devicePixelRatio * Math.min(2, Math.max(1, app.canvas.ds.scale));
    const size = [pad.clientWidth, pad.clientHeight].map((length) => Math.round(length * sharpness));
    if (pad.width !== size[0] || pad.height !== size[1]) [pad.width, pad.height] = size;
    const context = pad.getContext("2d");
    context.save();
    context.scale(sharpness, sharpness);
    context.fillStyle = style.getPropertyValue("--comfy-input-bg");
    context.fillRect(0, 0, pad.clientWidth, pad.clientHeight);
    context.translate(left, top);
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.strokeStyle = style.getPropertyValue("--border-color");
    drawGrid(context, cells, rows, cell);
    const turns = fill.value === "wrap" ? [-1, 0, 1] : [0];
    for (const right of turns) {
      for (const down of turns) {
        const at = [x.value * cell + right * width, y.value * cell + down * height, width, height];
        if (image) context.drawImage(image, ...at);
        else drawStandIn(context, style.getPropertyValue("--input-text"), at);
      }
    }
    context.strokeRect(0, 0, width, height);
    context.restore();
  }

  const limit = (value, cells) => Math.max(1 - cells, Math.min(cells - 1, value));
  function moveTo(right, down) {
    const { cells, rows } = layout();
    setWidget(x, limit(right, Math.floor(cells)));
    setWidget(y, limit(down, Math.floor(rows)));
  }

  let start = null;
  box.addEventListener("pointerenter", draw); // the picture may have come since
  box.addEventListener("pointerdown", (event) => {
    if (event.button === 1) app.canvas.processMouseDown(event); // moves the canvas, as everywhere
    if (event.button !== 0) return;
    event.stopPropagation();
    box.setPointerCapture(event.pointerId);
    start = { left: event.clientX, top: event.clientY, x: x.value, y: y.value };
  });
  box.addEventListener("pointermove", (event) => {
    if (!start) return;
    const cell = (layout().cell * pad.getBoundingClientRect().width) / pad.clientWidth; // on the screen, where the canvas may be zoomed
    moveTo(start.x + Math.round((event.clientX - start.left) / cell), start.y + Math.round((event.clientY - start.top) / cell));
  });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => (start = null));
  box.addEventListener("dblclick", () => {
    moveTo(0, 0);
    endStep();
  });
  box.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    moveTo(x.value + step[0], y.value + step[1]);
    endStep();
  });
  box.addEventListener("wheel", (event) => app.canvas.processMouseWheel(event));
  new ResizeObserver(draw).observe(pad);
  addElement(node, "shift_pad", box, { getMinHeight: () => 180, onDraw: draw });
  onChange(node, ["x", "y", "fill"], draw);
}

/** A line a cell, or every eighth where they would be too close. */
function drawGrid(context, cells, rows, cell) {
  const every = cell < 5 ? 8 : 1;
  context.beginPath();
  for (let i = every; i < cells; i += every) context.rect(i * cell, 0, 0, rows * cell);
  for (let i = every; i < rows; i += every) context.rect(0, i * cell, cells * cell, 0);
  context.lineWidth = 0.5;
  context.stroke();
}

/** What moves in the place of a picture: its outline with a cross. */
function drawStandIn(context, color, [left, top, width, height]) {
  context.save();
  context.globalAlpha = 0.25;
  context.fillStyle = color;
  context.fillRect(left, top, width, height);
  context.globalAlpha = 0.8;
  context.fillRect(left + width / 2 - 8, top + height / 2, 16, 1);
  context.fillRect(left + width / 2, top + height / 2 - 8, 1, 16);
  context.restore();
}
