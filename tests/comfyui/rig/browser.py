"""ComfyUI's own frontend, headless, on a running Server: opens workflows, converts them, queues
them and takes pictures of them.

    with Server() as server, Page(server) as page:
        page.load("example_workflows/Edit.json")
        page.missing()                      # node types that nobody has registered
        prompt = page.prompt()              # the API prompt, by the frontend's own graphToPrompt
        history = page.queue()              # the Queue button
        page.screenshot("Edit.png")

From the repository's folder, for files:

    python -m tests.comfyui.rig.browser example_workflows/*.json --api tests/comfyui/prompts/
    python -m tests.comfyui.rig.browser example_workflows/Edit.json --run --screenshot Edit.png

It needs playwright (pip install playwright) and a chromium of the system's (apt-get install
chromium, or the environment variable CHROMIUM): nothing is downloaded by playwright itself. No page
outside the server is reached.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import sys
import time
from pathlib import Path

from tests.comfyui.rig.server import PACK, PromptError, Server, validation_errors

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
READY_MS = 180_000
PICTURES_MS = 20_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
LARGEST_VIEW = (3600, 2400)
MARGIN = 40

# No tutorial, no panels over the graph, and text that is drawn however far one zooms out.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.VueNodes.Enabled": False,  # Nodes 2.0: the tests click on what the canvas draws
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Workflow.ShowMissingNodesWarning": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
}
SCREENSHOTS = PACK / "out" / "screenshots"
HIDDEN = ".comfy-menu-hamburger, .p-toast, .p-dialog-mask, .selection-toolbox, .p-tooltip { display: none !important }"

GRAPHS = "[app.graph, ...(app.graph.subgraphs?.values() ?? [])]"
IS_READY = """() => window.app?.graph && app.extensionManager?.workflow?.activeWorkflow
    && !document.querySelector('.p-blockui-mask')"""
MISSING = f"""() => {GRAPHS}.flatMap(graph => graph.nodes).map(node => node.type)
    .filter(type => !(type in LiteGraph.registered_node_types))"""
NODE_TYPES = f"() => {GRAPHS}.flatMap(graph => graph.nodes).map(node => node.type)"
PICTURES_SHOWN = """ids => app.graph.nodes.every(node => {
    const expected = ids.includes(String(node.id)) || node.type === 'LoadImage'
    return !expected || (node.imgs?.length && node.imgs.every(img => img.complete))
})"""
BOUNDS = """() => {
    const items = [...app.graph.nodes, ...app.graph.groups]
    const boxes = items.map(item => item.boundingRect ?? item.getBounding?.() ?? item._bounding)
    const left = Math.min(...boxes.map(box => box[0])), top = Math.min(...boxes.map(box => box[1]))
    const right = Math.max(...boxes.map(box => box[0] + box[2]))
    const bottom = Math.max(...boxes.map(box => box[1] + box[3]))
    return [left, top, right - left, bottom - top]
}"""
PLACE = """([left, top, margin, scale]) => {
    const view = app.canvas.ds
    view.scale = scale
    view.offset[0] = margin / scale - left
    view.offset[1] = margin / scale - top
    app.canvas.deselectAll?.()
    app.canvas.setDirty(true, true)
}"""
ALERTS = """() => [...document.querySelectorAll('.p-toast-message')]
    .map(message => message.innerText || message.textContent)"""
CLOSE_DIALOGS = "() => document.querySelectorAll('.p-dialog-close-button').forEach(button => button.click())"
FRAMES = (
    "count => new Promise(done => { const next = () => count-- > 0 ? requestAnimationFrame(next) : done(); next() })"
)


def find_chromium():
    """The path of a browser, or None."""
    named = os.environ.get("CHROMIUM")
    return next((path for path in map(shutil.which, [named] if named else BROWSERS) if path), None)


def why_not():
    """None where the browser tests can run here, else the reason."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install playwright)"
    if find_chromium() is None:
        named = os.environ.get("CHROMIUM")
        return (
            f"CHROMIUM is {named!r}, which cannot be run"
            if named
            else "no chromium (apt-get install chromium, or set CHROMIUM)"
        )
    return None


class Page:
    """The frontend of a Server in a browser of its own."""

    def __init__(self, server):
        reason = why_not()
        if reason:
            raise RuntimeError(f"no browser: {reason}.")
        self.server = server
        # {"text": ..., "url": ...} of each console error and uncaught exception since the last load
        self.errors = []

    def __enter__(self):
        from playwright.sync_api import sync_playwright

        self.server.post("/settings", SETTINGS)
        with contextlib.ExitStack() as stack:
            playwright = stack.enter_context(sync_playwright())
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
            stack.callback(browser.close)
            self.version = browser.version
            self._open(browser.new_page(viewport={"width": 1600, "height": 1000}))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def _open(self, page):
        self.page = page
        page.set_default_timeout(READY_MS)
        page.on(
            "console",
            lambda message: message.type == "error" and self._note(message.text, message.location.get("url", "")),
        )
        page.on("pageerror", lambda error: self._note(f"{error}\n{error.stack or ''}", ""))
        page.goto(self.server.url, wait_until="commit")
        page.wait_for_function(IS_READY)
        self._hidden = page.add_style_tag(content=HIDDEN)
        self.start_errors = list(self.errors)

    def _note(self, text, url):
        self.errors.append({"text": text, "url": url})

    def load(self, workflow):
        """Open a UI-format workflow: a path, or the JSON itself."""
        if not isinstance(workflow, dict):
            workflow = json.loads(Path(workflow).read_text("utf-8"))
        if "nodes" not in workflow:
            raise ValueError("a UI-format workflow has a list of nodes; this JSON has none (is it an API prompt?)")
        self.errors.clear()
        self.page.evaluate(CLOSE_DIALOGS)
        self.page.wait_for_function("() => !document.querySelector('.p-dialog-mask')")
        self.page.evaluate("() => app.extensionManager.toast.removeAll()")
        self.page.wait_for_function("() => !document.querySelector('.p-toast-message')")
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        self.page.evaluate(FRAMES, 3)

    def missing(self):
        """The node types of the open workflow that no node pack has registered."""
        return sorted(set(self.page.evaluate(MISSING)))

    def node_types(self):
        return self.page.evaluate(NODE_TYPES)

    def prompt(self):
        """The open workflow as an API prompt."""
        return self.page.evaluate("() => app.graphToPrompt().then(prompt => prompt.output)")

    def alerts(self):
        """The messages in the page's corner since the last load, which screenshots do not show: a
        workflow that breaks the frontend's schema gets one."""
        return self.page.evaluate(ALERTS)

    def our_errors(self):
        """The errors that may be the pack's: while the start page opened those that name its files;
        since the last load all, but for requests outside the pack that failed or were not allowed
        (pages of other hosts, the user's own css), and what the frontend says of itself when a
        script leaves a subgraph."""
        ours = f"{self.server.url}/extensions/{self.server.folder}/"
        opening = [error for error in self.start_errors if ours in error["url"] + error["text"]]
        elsewhere = (
            "Failed to load resource",
            "Error loading core workflow templates",  # a request that failed, in the frontend's words
            "Content Security Policy",
            "Attempted to cleanup event listeners",
        )
        return opening + [
            error
            for error in self.errors
            if ours in error["url"] or not any(words in error["text"] for words in elsewhere)
        ]

    def queue(self, timeout=600):
        """Press Queue and wait: the History, with the pictures shown in the page too; PromptError
        where it failed."""
        with self.page.expect_response(
            lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST"
        ) as answer:
            self.page.evaluate("() => app.queuePrompt(0)")
        prompt, body = json.loads(answer.value.request.post_data)["prompt"], answer.value.json()
        if body.get("node_errors") or "prompt_id" not in body:
            if "prompt_id" in body:
                self.server.cancel(body["prompt_id"])
            raise PromptError("validation", validation_errors(body, prompt))
        history = self.server.wait(body["prompt_id"], timeout)
        self._await_pictures([node_id for node_id, output in history.outputs.items() if output.images])
        return history

    def _await_pictures(self, node_ids=()):
        """Wait until these nodes show their pictures, and LoadImage nodes theirs; not for ever,
        since a file may be absent."""
        from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

        with contextlib.suppress(PlaywrightTimeoutError):
            self.page.wait_for_function(PICTURES_SHOWN, arg=list(node_ids), timeout=PICTURES_MS)

    def screenshot(self, path, scale=1.0):
        """The whole graph and nothing else, at `scale` or, where that is too large a picture, as
        large as fits."""
        self.page.evaluate("() => { app.extensionManager.focusMode = true }")
        left, top, width, height = self.page.evaluate(BOUNDS)
        scale = min(scale, *((most - 2 * MARGIN) / size for most, size in zip(LARGEST_VIEW, (width, height))))
        self.page.set_viewport_size(
            {"width": int(width * scale) + 2 * MARGIN, "height": int(height * scale) + 2 * MARGIN}
        )
        self.page.evaluate(FRAMES, 10)
        self.page.evaluate(PLACE, [left, top, MARGIN, scale])
        self._await_pictures()
        self.page.evaluate(FRAMES, 10)
        self.page.screenshot(path=str(path))

    @contextlib.contextmanager
    def whole(self, width=1600, height=1000):
        """The page as a person sees it, with its menus, dialogs, messages and tooltips; without
        this they are hidden."""
        show = "(style, shown) => { style.disabled = shown; app.extensionManager.focusMode = !shown }"
        self.page.set_viewport_size({"width": width, "height": height})
        self._hidden.evaluate(show, True)
        try:
            yield
        finally:
            self._hidden.evaluate(show, False)

    def keep(self, name, clip=None):
        """Keep a picture of the page as it is, or of a part of it, to look at after the tests."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), clip=clip)


def _target(argument, workflow, suffix):
    """Where a file for this workflow goes: the argument itself, or a file named after the workflow
    in that folder."""
    folder = argument.endswith(("/", os.sep)) or Path(argument).is_dir()
    path = Path(argument) / (workflow.stem + suffix) if folder else Path(argument)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _handle(page, workflow, options):
    """Do for one workflow what the command was asked; whether all was well."""
    page.load(workflow)
    problems = [f"missing node type: {kind}" for kind in page.missing()] + [
        f"console error: {error['text']} {error['url']}" for error in page.our_errors()
    ]
    if options.api:
        _target(options.api, workflow, ".json").write_text(json.dumps(page.prompt(), indent=2) + "\n", "utf-8")
    if options.run:
        start = time.monotonic()
        try:
            history = page.queue()
        except PromptError as error:
            problems.append(str(error))
        else:
            print(
                f"{workflow.name}: {len(history.images)} pictures in {time.monotonic() - start:.1f} s",
                *history.text,
                sep="\n  ",
            )
            for number, image in enumerate(history.images if options.pictures else []):
                image.save(_target(options.pictures, workflow, f"-{number}.png"))
    if options.screenshot:
        page.screenshot(_target(options.screenshot, workflow, ".png"))
    print(f"{workflow.name}: {len(page.node_types())} nodes; " + ("; ".join(problems) or "opens without errors"))
    return not problems


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.comfyui.rig.browser",
        description="Open workflows in ComfyUI's frontend, convert, run and picture them.",
    )
    parser.add_argument("workflows", nargs="+", type=Path, help="UI-format workflow files")
    parser.add_argument("--screenshot", help="write a picture of the graph here (a folder: named after the workflow)")
    parser.add_argument("--api", help="write the API prompt here (a folder: named after the workflow)")
    parser.add_argument("--run", action="store_true", help="press Queue and wait, before the screenshot is taken")
    parser.add_argument("--pictures", help="with --run, write the pictures that the workflow made to this folder")
    options = parser.parse_args(arguments)
    absent = [str(path) for path in options.workflows if not path.is_file()]
    if absent:
        parser.error(f"no such file: {', '.join(absent)}")
    if len(options.workflows) > 1 and any(
        target and not target.endswith(("/", os.sep)) and not Path(target).is_dir()
        for target in (options.screenshot, options.api)
    ):
        parser.error("with several workflows --screenshot and --api name a folder (end it with a slash)")
    if options.pictures:
        options.pictures = options.pictures.rstrip("/") + "/"
    try:
        with Server() as server, Page(server) as page:
            fine = [_handle(page, workflow, options) for workflow in options.workflows]
    except RuntimeError as error:
        sys.exit(str(error))
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
