"""A real ComfyUI server, in a folder of its own, with this pack in its custom_nodes: what the tests
queue prompts on.

    with Server() as server:
        history = server.queue({"1": {"class_type": "EmptyImage", "inputs": {...}}, ...})
        history["2"].images[0]          # a PIL picture

Nothing of the user's ComfyUI is written to: models, input, output, temp, user and the database lie
in a temporary folder (`server.base`), gone when the server stops. The client needs Pillow and
nothing of ComfyUI's.
"""

import functools
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

# Not resolved: custom_nodes may hold a link to the pack.
PACK = Path(__file__).absolute().parents[3]
RIG = PACK / "tests" / "comfyui" / "rig"
FOLDER = "edit-friendly-noise-maps"
OWN = PACK / ".comfyui"  # where `make comfyui` puts one
# Nodes that the tests need, in a pack with a package `nodes` of its own.
PACKS = [PACK / "tests" / "comfyui" / "neighbour"]
START_SECONDS = 300
LOG_LINES = 40

# PyPI's torchvision beside a CPU build of torch: its import stops at operators that nobody
# registered.
DECLARE_OPERATORS = """\
import torch

_library = torch.library.Library("torchvision", "DEF")
for _op in ("nms", "qnms"):
    _library.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""

# No proxy: the server is on this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class PromptError(Exception):
    """A prompt that ComfyUI refused (`kind` "validation"), that failed ("execution") or that was
    stopped ("interrupted").

    `node_id`, `node_type`, `type` and `message` are those of the first error; `errors` has a dict
    for each, with ComfyUI's own `details` and `extra_info` (validation) or `traceback` (execution).
    """

    def __init__(self, kind, errors):
        self.kind = kind
        self.errors = errors
        first = errors[0]
        self.node_id, self.node_type, self.type, self.message = (
            first.get(key) for key in ("node_id", "node_type", "type", "message")
        )
        lines = [f"{kind} error"]
        for error in errors:
            where, kind = f"node {error.get('node_id')} ({error.get('node_type')})", error.get("type")
            lines.append(f"{where}: {kind}: {error.get('message')} {error.get('details') or ''}".rstrip())
            lines.append(error.get("traceback", ""))
        super().__init__("\n".join(line for line in lines if line))


@dataclass
class Output:
    """What one output node handed to the UI: pictures, text, and the rest as ComfyUI sent it."""

    images: list
    text: list
    ui: dict


@dataclass
class History:
    """A finished prompt; `history["9"]` is the Output of node 9."""

    prompt_id: str
    outputs: dict = field(default_factory=dict)

    def __getitem__(self, node_id):
        return self.outputs[str(node_id)]

    @property
    def images(self):
        return [image for output in self.outputs.values() for image in output.images]

    @property
    def text(self):
        return [text for output in self.outputs.values() for text in output.text]


def find_comfyui():
    """(ComfyUI's folder or None, how it was found or why not)."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        path = Path(named).expanduser()
        if (path / "main.py").is_file():
            return path.resolve(), "COMFYUI_PATH"
        return None, f"COMFYUI_PATH is {named!r}, and there is no main.py in it"
    around, home = PACK.parent.parent, Path.home() / "comfy" / "ComfyUI"
    if PACK.parent.name == "custom_nodes" and (around / "main.py").is_file():
        return around, "two folders up"
    if (home / "main.py").is_file():
        return home, "~/comfy/ComfyUI"
    if (OWN / "main.py").is_file():
        return OWN, "make comfyui"
    return None, "no ComfyUI in COMFYUI_PATH, two folders up or ~/comfy/ComfyUI"


def find_python(comfy):
    """(the Python that runs this ComfyUI or None, how it was found or why not)."""
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        found = shutil.which(os.path.expanduser(named))
        return (Path(found), "COMFYUI_PYTHON") if found else (None, f"COMFYUI_PYTHON is {named!r}, which cannot be run")
    for python in (comfy / ".venv" / "bin" / "python", comfy / ".venv" / "Scripts" / "python.exe"):
        if python.is_file():
            return python, str(python)
    return None, f"no COMFYUI_PYTHON, and no .venv in {comfy}"


def why_not():
    """None where a server can be started here, else the reason."""
    comfy, reason = find_comfyui()
    if comfy is None:
        return reason
    python, reason = find_python(comfy)
    return None if python else reason


def comfyui_version(comfy):
    path = comfy / "comfyui_version.py"
    parts = path.read_text("utf-8").split('"') if path.is_file() else []
    return parts[1] if len(parts) > 1 else "of unknown version"


@functools.cache
def lacks_operators(python):
    """Whether torchvision's import stops at its missing operators in this Python."""
    probe = subprocess.run(
        [str(python), "-c", "import torchvision"], capture_output=True, text=True, env=_environment(), check=False
    )
    return "torchvision::nms does not exist" in probe.stderr


@functools.cache
def lacks_matplotlib(python):
    """Whether NoiseMapStats cannot draw in this Python."""
    return (
        subprocess.run(
            [str(python), "-c", "import matplotlib.figure"], capture_output=True, env=_environment(), check=False
        ).returncode
        != 0
    )


def _environment(**more):
    """This process's variables, less what points Python at this process's own packages."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **more}


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """ComfyUI on a free port, in a temporary base folder, with `pack` linked as
    custom_nodes/`folder`, and the other packs of the tests beside it."""

    def __init__(self, pack=PACK, folder=FOLDER, extra_args=()):
        self.pack, self.folder, self.extra_args = Path(pack), folder, list(extra_args)
        self.comfy, reason = find_comfyui()
        if self.comfy is None:
            raise RuntimeError(f"ComfyUI was not found: {reason}.")
        self.python, reason = find_python(self.comfy)
        if self.python is None:
            raise RuntimeError(f"ComfyUI's Python was not found: {reason}.")
        self.version = comfyui_version(self.comfy)
        self.url = self.process = None

    def __enter__(self):
        self._temporary = tempfile.TemporaryDirectory(prefix="comfyui-test-", ignore_cleanup_errors=True)
        self.base = Path(self._temporary.name).resolve()
        try:
            self._furnish()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception):
        self.stop()

    def _furnish(self):
        """The folders of a fresh ComfyUI, its example picture, and the pack."""
        kinds = [path.name for path in (self.comfy / "models").iterdir() if path.is_dir()]
        for name in (
            "custom_nodes",
            "input",
            "output",
            "temp",
            "user",
            "python",
            *(f"models/{kind}" for kind in kinds),
        ):
            (self.base / name).mkdir(parents=True)
        if (self.comfy / "input" / "example.png").is_file():
            shutil.copy(self.comfy / "input" / "example.png", self.base / "input")
        for name, pack in ((self.folder, self.pack), *((pack.name, pack) for pack in PACKS)):
            self._link(name, pack)
        if lacks_operators(self.python):
            (self.base / "python" / "sitecustomize.py").write_text(DECLARE_OPERATORS, "utf-8")

    def _link(self, name, pack):
        link = self.base / "custom_nodes" / name
        try:
            link.symlink_to(pack, target_is_directory=True)
        except OSError:  # Windows lets only some users link
            shutil.copytree(pack, link, ignore=shutil.ignore_patterns(".*", "__pycache__"))

    def _start(self):
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments = [
            "--cpu",
            "--port",
            str(port),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--preview-method",
            "auto",
        ]
        arguments += [
            "--base-directory",
            str(self.base),
            "--database-url",
            f"sqlite:///{(self.base / 'user' / 'comfyui.db').as_posix()}",
        ]
        self._log_file = open(self.base / "server.log", "wb")  # noqa: SIM115 - closed in stop()
        self.process = subprocess.Popen(
            [str(self.python), "main.py", *arguments, *self.extra_args],
            cwd=self.comfy,
            env=_environment(PYTHONPATH=str(self.base / "python")),
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
        )
        self._await_start()

    def _await_start(self):
        # Counted, not clocked: a machine that was suspended meanwhile is no failure.
        for _ in range(2 * START_SECONDS):
            self._check_alive("ComfyUI stopped while it was starting")
            try:
                self.stats = self.get("/system_stats", timeout=5)
                return
            except (OSError, ValueError):
                time.sleep(0.5)
        raise RuntimeError(f"ComfyUI did not answer within {START_SECONDS} s; {self._log_tail()}")

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self._log_file.close()
            self.process = None
        self._temporary.cleanup()

    def run_script(self, script, *arguments, timeout=600):
        """Run a Python script in ComfyUI's environment and folder; what it printed. Raises
        RuntimeError with its errors."""
        command = [str(self.python), str(script), *map(str, arguments)]
        environment = _environment(PYTHONPATH=str(self.base / "python"))
        done = subprocess.run(
            command, cwd=self.comfy, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{script} failed:\n{done.stderr[-4000:]}")
        return done.stdout

    @property
    def log(self):
        """Everything that the server has printed."""
        path = self.base / "server.log"
        return path.read_text("utf-8", errors="replace") if path.is_file() else ""

    def _log_tail(self):
        return "the end of its log:\n" + "\n".join(self.log.splitlines()[-LOG_LINES:])

    def _check_alive(self, what):
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{what}; {self._log_tail()}")

    def get(self, path, timeout=60):
        """GET the JSON at a path of the server."""
        with _open(self.url + path, timeout=timeout) as answer:
            return json.load(answer)

    def post(self, path, data=None, timeout=60):
        """POST `data` as JSON; the JSON that comes back, or None where the answer is empty."""
        request = urllib.request.Request(
            self.url + path, json.dumps(data or {}).encode(), {"Content-Type": "application/json"}
        )
        with _open(request, timeout=timeout) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def view(self, entry):
        """The bytes of a file that an output node named, such as {"filename": ..., "subfolder":
        ..., "type": "temp"}."""
        query = urllib.parse.urlencode({key: entry[key] for key in ("filename", "subfolder", "type") if key in entry})
        with _open(f"{self.url}/view?{query}", timeout=60) as answer:
            return answer.read()

    def object_info(self):
        return self.get("/object_info")

    def interrupt(self):
        self.post("/interrupt")

    def queue(self, prompt, timeout=600):
        """Run an API-format prompt to its end: its History, or PromptError."""
        return self.wait(self.submit(prompt), timeout)

    def submit(self, prompt):
        """Queue an API-format prompt and return its id at once; PromptError where any part of it is
        refused."""
        prompt_id = str(uuid.uuid4())
        try:
            answer = self.post("/prompt", {"prompt": prompt, "prompt_id": prompt_id, "client_id": "tests"})
        except urllib.error.HTTPError as refusal:
            if refusal.code != 400:
                raise
            raise PromptError("validation", validation_errors(json.load(refusal), prompt)) from None
        # Where some outputs are sound ComfyUI would run those and drop the others.
        if answer.get("node_errors"):
            self.cancel(prompt_id)
            raise PromptError("validation", validation_errors(answer, prompt))
        return answer["prompt_id"]

    def cancel(self, prompt_id):
        """Take a prompt out of the queue, or stop it where it runs already."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def wait(self, prompt_id, timeout=600):
        """The History of a queued prompt, once it is done; PromptError where it failed or was
        interrupted."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self._check_alive("ComfyUI stopped while a prompt was running")
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                _check_status(entry)
                return History(prompt_id, {node_id: self._output(ui) for node_id, ui in entry["outputs"].items()})
            time.sleep(0.1)
        self.cancel(prompt_id)
        raise TimeoutError(f"the prompt was not done within {timeout} s; {self._log_tail()}")

    def is_running(self, prompt_id):
        return any(item[1] == prompt_id for item in self.get("/queue")["queue_running"])

    def _output(self, ui):
        images, text = [], ui.get("text") or []
        for entry in ui.get("images") or []:
            image = Image.open(io.BytesIO(self.view(entry)))
            image.load()
            images.append(image)
        return Output(images, [text] if isinstance(text, str) else list(text), ui)


def _check_status(entry):
    """Raise what went wrong in a finished prompt."""
    for event, data in entry["status"]["messages"]:
        if event not in ("execution_error", "execution_interrupted"):
            continue
        kind = event.removeprefix("execution_").replace("error", "execution")
        error = {
            "node_id": data.get("node_id"),
            "node_type": data.get("node_type"),
            "type": data.get("exception_type", kind),
            "message": data.get("exception_message", "the prompt was interrupted").strip(),
            "traceback": "".join(data.get("traceback", [])),
        }
        raise PromptError(kind, [error])
    if entry["status"]["status_str"] != "success":
        raise PromptError("execution", [{"type": "unknown", "message": f"ComfyUI says only {entry['status']}"}])


def validation_errors(body, prompt):
    """ComfyUI's answer to a prompt that it refused, as one list of errors with their nodes."""
    errors = []
    for node_id, node in (body.get("node_errors") or {}).items():
        for error in node["errors"]:
            errors.append({**error, "node_id": node_id, "node_type": node["class_type"]})
    if errors:
        return errors
    error = body["error"]
    if not isinstance(error, dict):
        error = {"type": "invalid_prompt", "message": str(error)}
    # An unknown node type comes as "Node ID '#7'" in the details, with no entry of its own.
    node_id = next((key for key in prompt if f"'#{key}'" in str(error.get("details"))), None)
    return [{**error, "node_id": node_id, "node_type": prompt[node_id].get("class_type") if node_id else None}]
