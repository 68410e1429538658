/**
 * What the browser adds to the nodes. The nodes work without it, and nothing of it is saved in a
 * workflow: every widget added here is the last of its node and has `serialize: false`, since saved
 * widget values are stored by position.
 */
import { app } from "../../scripts/app.js";
import { addColorControl } from "./color_control.js";
import { showCaption } from "./demo_scene.js";
import { addUpload, showSaved } from "./maps_file.js";
import { addShiftPad } from "./shift_pad.js";

const TYPE = "NOISE_MAPS";
// 2.5 : 1 or more against nodes and canvas, in the dark theme and in the light one
const COLOR = "#0d9488";

const ADDITIONS = {
  ColorMaskEdit: addColorControl,
  ShiftNoise: addShiftPad,
  LoadNoiseMaps: addUpload,
  SaveNoiseMaps: showSaved,
  DrawDemoScene: showCaption,
};

/**
 * Give the type its colour in a table of ComfyUI's, which every change of theme empties for the
 * types that the theme does not know.
 */
function colorType(table) {
  let themed;
  const [get, set] = [() => themed || COLOR, (color) => (themed = color)];
  Object.defineProperty(table, TYPE, { get, set, enumerable: true, configurable: true });
}

app.registerExtension({
  name: "EditFriendlyNoiseMaps",

  setup() {
    colorType(app.canvas.default_connection_color_byType); // sockets
    colorType(app.canvas.constructor.link_type_colors);
  },

  nodeCreated(node) {
    const slots = [...(node.inputs ?? []), ...(node.outputs ?? [])];
    const control = node.widgets?.find((widget) => widget.name === "control_after_generate");
    // A saved workflow sets its own value after this.
    if (control && slots.some((slot) => slot.type === TYPE)) control.value = "fixed";
    ADDITIONS[node.comfyClass]?.(node);
  },
});
