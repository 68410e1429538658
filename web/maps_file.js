import { api } from "../../scripts/api.js";
import { addElement, endStep, setWidget, showError, widgetOf } from "./widgets.js";

const TOO_LARGE =
  "the file is larger than ComfyUI takes: " +
  "copy it into ComfyUI's input folder, or start ComfyUI with --max-upload-size";
const TEXT_STYLE = {
  font: "12px sans-serif",
  color: "var(--input-text)",
  overflow: "hidden auto",
  overflowWrap: "anywhere",
  whiteSpace: "pre-wrap",
};

const isMapsFile = (file) => file.name.toLowerCase().endsWith(".safetensors");

/** Put a file into ComfyUI's input folder; its name there. */
async function upload(file) {
  const body = new FormData();
  body.append("image", file);
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (answer.status === 413) throw new Error(TOO_LARGE);
  if (!answer.ok) throw new Error(`the server answered ${answer.status} ${answer.statusText}`);
  const { name, subfolder } = await answer.json();
  return subfolder ? `${subfolder}/${name}` : name;
}

/**
 * LoadNoiseMaps: a button that uploads a file and chooses it; a file that is dropped on the node
 * does the same.
 */
export function addUpload(node) {
  async function take(file) {
    try {
      if (!isMapsFile(file)) throw new Error("noise maps are .safetensors files");
      const name = await upload(file);
      const combo = widgetOf(node, "file");
      if (!combo.options.values.includes(name)) combo.options.values.push(name);
      setWidget(combo, name);
      endStep();
    } catch (error) {
      showError("Noise maps were not uploaded", `${file.name}: ${error.message}`);
    }
  }

  function choose() {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: ".safetensors" });
    input.addEventListener("change", () => take(input.files[0]));
    input.click();
  }

  node.addWidget("button", "upload a file", null, choose, { serialize: false }).serialize = false;
  node.onDragOver = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
  node.onDragDrop = (event) => {
    const [file] = event.dataTransfer.files;
    if (file) take(file);
    return Boolean(file);
  };
}

/** SaveNoiseMaps: what the run said about the saved file, on the node. */
export function showSaved(node) {
  const { onExecuted } = node;
  let text;
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    if (!output.text) return;
    if (!text) {
      text = document.createElement("div");
      Object.assign(text.style, TEXT_STYLE);
      addElement(node, "saved", text, { getMinHeight: () => 28 });
    }
    text.textContent = [output.text].flat().join("\n");
  };
}
