import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addElement, endStep, onChange, setWidget, widgetOf } from "./widgets.js";

// The inputs through which the picture came, the nearest first.
const WAY_UP = ["NOISE_MAPS", "LATENT", "IMAGE"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const isLoaded = (image) => image?.complete && image.naturalWidth > 0;
const images = new Map(); // by their address

/** What a node's last run told the page. */
function toldBy(node) {
  const place = node.graph?.isRootGraph === false ? `${node.graph.id}:` : "";
  return app.nodeOutputs?.[place + node.id];
}

/** The picture on a node: one that was never drawn, inside of a subgraph, has not loaded it. */
function pictureOn(node, redraw) {
  const file = toldBy(node)?.images?.[0];
  if (isLoaded(node.imgs?.[0]) || !file?.filename) return node.imgs?.[0];
  const address = api.apiURL(`/view?${new URLSearchParams(file)}`);
  if (!images.has(address)) {
    if (images.size >= 32) images.clear();
    images.set(address, new Image());
    images.get(address).onload = redraw;
    images.get(address).src = address;
  }
  return images.get(address);
}

/** The picture of an output: on its own node, or on a preview that hangs on it. */
function pictureAt({ node, slot }, redraw) {
  const links = node.outputs[slot]?.links ?? [];
  const previews = links.map((id) => node.graph.getNodeById(node.graph.getLink(id)?.target_id));
  return [node, ...previews].map((shown) => shown && pictureOn(shown, redraw)).find(isLoaded);
}

/** The output that an input hangs on; for the input of a subgraph the one outside. */
function originOf(node, input) {
  const link = input && node.graph.getLink(input.link);
  const origin = link && node.graph.getNodeById(link.origin_id);
  if (!link || origin) return origin && { node: origin, slot: link.origin_slot };
  const graphs = [app.graph, ...(app.graph.subgraphs?.values() ?? [])];
  const outside = graphs.flatMap((graph) => graph.nodes).find((other) => other.subgraph === node.graph);
  return outside && originOf(outside, outside.inputs[link.origin_slot]);
}

/** The output inside of a subgraph that gives what comes out of its node. */
function insideOf({ node, slot }) {
  const link = node.subgraph.getLink(node.subgraph.outputs[slot].linkIds[0]);
  const origin = link && node.subgraph.getNodeById(link.origin_id);
  return origin && { node: origin, slot: link.origin_slot };
}

/** The source picture of a node's maps, if it is to be seen anywhere; `redraw` when it comes later. */
function findPicture(node, redraw) {
  for (let steps = 0; node && steps < 100; steps++) {
    const isReroute = node.type === "Reroute";
    const linked = node.inputs?.filter((input) => input.link != null) ?? [];
    const [nearest] = WAY_UP.flatMap((type) => linked.filter((input) => input.type === type));
    const input = isReroute ? linked[0] : nearest;
    let origin = originOf(node, input);
    node = null;
    while (origin) {
      const image = (isReroute || input.type === "IMAGE") && pictureAt(origin, redraw);
      if (image) return image;
      node = origin.node;
      origin = node.subgraph && insideOf(origin);
    }
  }
}

/**
 * The pad, and the box around it that takes the events: ComfyUI takes every canvas under the mouse
 * for its own and shows tooltips of what lies there.
 */
function makeElements() {
  const box = document.createElement("div");
  const canvas = document.createElement("canvas");
  box.tabIndex = 0;
  box.title = "Drag the picture; arrow keys move it by a cell, a double click puts it back";
  Object.assign(box.style, { cursor: "move", touchAction: "none" });
  const filling = { width: "100%", height: "100%", display: "block" };
  Object.assign(canvas.style, { ...filling, borderRadius: "4px", pointerEvents: "none" });
  box.append(canvas);
  return { box, canvas };
}

/** The frame of the picture in the pad, in the pad's own pixels. */
function layout({ node, canvas, redraw }) {
  const image = findPicture(node, redraw);
  const told = toldBy(node)?.cells;
  const [cells, rows] = told ?? (image ? [image.naturalWidth, image.naturalHeight] : [1, 1]);
  const cell = Math.min(canvas.clientWidth / cells, canvas.clientHeight / rows);
  const [width, height] = [cells * cell, rows * cell];
  const [left, top] = [(canvas.clientWidth - width) / 2, (canvas.clientHeight - height) / 2];
  return { image, isKnown: Boolean(told), cells, rows, cell, width, height, left, top };
}

/** As many pixels as the screen shows at this zoom; how many times the pad's own that is. */
function sharpen(canvas) {
  const sharpness = devicePixelRatio * Math.min(2, Math.max(1, app.canvas.ds.scale));
  const size = [canvas.clientWidth, canvas.clientHeight].map((length) => Math.round(length * sharpness));
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  return sharpness;
}

function draw(pad) {
  const { canvas } = pad;
  if (!canvas.clientWidth || !canvas.clientHeight) return;
  const frame = layout(pad);
  const style = getComputedStyle(canvas);
  const sharpness = sharpen(canvas);
  const context = canvas.getContext("2d");
  context.save();
  context.scale(sharpness, sharpness);
  context.fillStyle = style.getPropertyValue("--comfy-input-bg");
  context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  context.translate(frame.left, frame.top);
  context.beginPath();
  context.rect(0, 0, frame.width, frame.height);
  context.clip();
  context.strokeStyle = style.getPropertyValue("--border-color");
  if (frame.isKnown) {
    drawGrid(context, frame);
    drawMoved(context, pad, frame, style.getPropertyValue("--input-text"));
  } else drawUnknown(context, frame, style);
  context.strokeRect(0, 0, frame.width, frame.height);
  context.restore();
}

/** The picture where x and y move it; with "wrap" what leaves on one side comes in on the other. */
function drawMoved(context, { x, y, fill }, { image, cell, width, height }, color) {
  const turns = fill.value === "wrap" ? [-1, 0, 1] : [0];
  for (const right of turns) {
    for (const down of turns) {
      const at = [x.value * cell + right * width, y.value * cell + down * height, width, height];
      if (image) context.drawImage(image, ...at);
      else drawStandIn(context, color, at);
    }
  }
}

/** The picture at rest: before the first run nothing tells how large a cell is. */
function drawUnknown(context, { image, width, height }, style) {
  if (image) context.drawImage(image, 0, 0, width, height);
  context.fillStyle = style.getPropertyValue("--comfy-input-bg");
  context.fillRect(0, height - 24, width, 24);
  context.fillStyle = style.getPropertyValue("--input-text");
  context.font = "12px sans-serif";
  context.textAlign = "center";
  context.fillText("Run once, then drag me", width / 2, height - 8, width);
}

/** Set x and y, as far as a part of the picture is left. */
function moveTo(pad, right, down) {
  const { isKnown, cells, rows } = layout(pad);
  const limit = (value, count) => (isKnown ? Math.max(1 - count, Math.min(count - 1, value)) : value);
  setWidget(pad.x, limit(right, cells));
  setWidget(pad.y, limit(down, rows));
}

/**
 * The left button drags the picture; the middle one and the wheel do what they do everywhere on the
 * canvas.
 */
function listenToMouse(box, pad) {
  let start = null;
  box.addEventListener("pointerdown", (event) => {
    if (event.button === 1) app.canvas.processMouseDown(event);
    if (event.button !== 0) return;
    event.stopPropagation();
    box.setPointerCapture(event.pointerId);
    start = { left: event.clientX, top: event.clientY, x: pad.x.value, y: pad.y.value };
  });
  box.addEventListener("pointermove", (event) => {
    if (!start || !layout(pad).isKnown) return;
    const zoom = pad.canvas.getBoundingClientRect().width / pad.canvas.clientWidth;
    const cells = (length) => Math.round(length / (layout(pad).cell * zoom));
    moveTo(pad, start.x + cells(event.clientX - start.left), start.y + cells(event.clientY - start.top));
  });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => (start = null));
  box.addEventListener("dblclick", () => {
    moveTo(pad, 0, 0);
    endStep();
  });
  box.addEventListener("wheel", (event) => app.canvas.processMouseWheel(event));
}

function listenToArrows(box, pad) {
  box.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    moveTo(pad, pad.x.value + step[0], pad.y.value + step[1]);
    endStep();
  });
}

/** ShiftNoise: a pad that shows the picture where x and y move it, and on which it is dragged. */
export function addShiftPad(node) {
  const { box, canvas } = makeElements();
  const [x, y, fill] = ["x", "y", "fill"].map((name) => widgetOf(node, name));
  const redraw = () => draw(pad);
  const pad = { node, canvas, x, y, fill, redraw };
  box.addEventListener("pointerenter", redraw); // the picture may have come since
  listenToMouse(box, pad);
  listenToArrows(box, pad);
  new ResizeObserver(redraw).observe(canvas);
  addElement(node, "shift_pad", box, { getMinHeight: () => 180, onDraw: redraw });
  onChange(node, ["x", "y", "fill"], redraw);
}

/** A line a cell, or every eighth where they would be too close. */
function drawGrid(context, { cells, rows, cell }) {
  const every = cell < 5 ? 8 : 1;
  context.beginPath();
  for (let i = every; i < cells; i += every) context.rect(i * cell, 0, 0, rows * cell);
  for (let i = every; i < rows; i += every) context.rect(0, i * cell, cells * cell, 0);
  context.lineWidth = 0.5;
  context.stroke();
}

/** What moves in the place of a picture: its outline with a cross, and how to get the picture. */
function drawStandIn(context, color, [left, top, width, height]) {
  context.save();
  context.globalAlpha = 0.25;
  context.fillStyle = color;
  context.fillRect(left, top, width, height);
  context.globalAlpha = 0.8;
  context.fillRect(left + width / 2 - 8, top + height / 2, 16, 1);
  context.fillRect(left + width / 2, top + height / 2 - 8, 1, 16);
  context.font = "12px sans-serif";
  context.textAlign = "center";
  context.fillText("Run once, then drag me", left + width / 2, top + height / 2 + 28, width);
  context.restore();
}
