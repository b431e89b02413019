"""The live page: time and memory of an update under a drag, as the server and a headless Chromium spend them.

    python benchmarks/explorer.py --out docs/benchmarks/explorer.json
    python benchmarks/explorer.py --models vgg8 --minutes 10 --out long.json

For each model `shiftlens explore` runs as a process of its own. A page drags its image round a circle, with one layer's
maps shown, as fast as answers come; an update is one answer for both columns (the model, and its copy that pads
otherwise). Measured: updates a second, CPU time of the server and of the browser
an update, the server's resident memory once the page is open (beside that of a process that imports torch, loads the
same weights with it and runs them once), and how both grow over `--minutes` of dragging. Other work on the machine
makes the rate smaller, and leaves the CPU times nearly as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from header import header

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
READY = "html[data-ready=yes]"
MODELS = {
    "vgg8": ("--model", "pretrained:vgg-cifar10"),
    "resnet18": ("--model", "torchvision:resnet18", "--weights", "random"),
}
AIMS = {"vgg8": 20, "resnet18": 8}
"""Updates a second on two cores."""

ALONE = """
import sys, psutil, torch
from torch import nn
net = torch.load(sys.argv[1], weights_only=False).eval()
with torch.no_grad():
    net(torch.zeros(1, 3, int(sys.argv[2]), int(sys.argv[2])))
print(psutil.Process().memory_info().rss)
"""
SAVED = """
import sys, torch
import shiftlens as sl
options = {"weights": "random"} if "torchvision" in sys.argv[1] else {}
model = sl.load_model(sys.argv[1], **options)
torch.save(model.module, sys.argv[2])
print(model.input_size[0])
"""

# Each animation frame moves the image one step round a circle; what is shown is counted.
DRAG = """
([seconds, radius]) => new Promise((resolve) => {
  const frame = document.getElementById("frame");
  const shown = document.querySelectorAll(".model:not([hidden]) .says");
  const last = shown[shown.length - 1];
  let updates = 0, step = 0;
  const observer = new MutationObserver((changes) => { updates += changes.length; });
  observer.observe(last, { attributes: true, attributeFilter: ["data-answers"] });
  const box = frame.getBoundingClientRect();
  const at = () => {
    const [x, y] = [Math.cos(step / 12) * radius, Math.sin(step / 12) * radius];
    const [clientX, clientY] = [box.x + box.width / 2 + x, box.y + box.height / 2 + y];
    return { pointerId: 1, button: 0, bubbles: true, clientX, clientY };
  };
  const send = (kind) => frame.dispatchEvent(new PointerEvent(kind, at()));
  frame.setPointerCapture = () => {};
  send("pointerdown");
  const begun = performance.now();
  const move = () => {
    step += 1;
    send("pointermove");
    if (performance.now() - begun < 1000 * seconds) { requestAnimationFrame(move); return; }
    send("pointerup");
    observer.disconnect();
    resolve([updates, (performance.now() - begun) / 1000]);
  };
  requestAnimationFrame(move);
})
"""


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(each.cpu_times().user + each.cpu_times().system for each in processes if each.is_running())


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def beside(spec: str, work: Path) -> int:
    """Resident bytes of a process that has torch, the net and its weights, and has run it once."""

    def ran(code: str, *words: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    saved = str(work / "net.pt")
    size = ran(SAVED, spec, saved)
    return int(ran(ALONE, saved, size))


def dragged(page: Page, server: psutil.Process, browser: psutil.Process, seconds: float) -> dict[str, float]:
    box = page.locator("#frame").bounding_box()
    assert box is not None
    before = cpu_seconds([server]), cpu_seconds(family(browser))
    updates, took = page.evaluate(DRAG, [seconds, box["width"] / 4])
    after = cpu_seconds([server]), cpu_seconds(family(browser))
    n = max(1, updates)
    return {
        "updates_per_second": updates / took,
        "server_cpu_ms": 1000 * (after[0] - before[0]) / n,
        "browser_cpu_ms": 1000 * (after[1] - before[1]) / n,
    }


def measured(name: str, seconds: float, minutes: float, work: Path) -> dict[str, Any]:
    spec = MODELS[name]
    command = [sys.executable, "-m", "shiftlens", "explore", "--json", *spec]
    chromium = next(found for each in NAMES if (found := shutil.which(each)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            server = psutil.Process(process.pid)
            with sync_playwright() as play:
                started = set(psutil.Process().children(recursive=True))
                browser = play.chromium.launch(executable_path=chromium, args=list(FLAGS))
                new = set(psutil.Process().children(recursive=True)) - started
                root = min(new, key=lambda each: each.create_time())
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto(address)
                page.wait_for_selector(READY, state="attached", timeout=120_000)
                time.sleep(2)
                idle, alone = resident(server), beside(spec[1], work)
                layers = page.eval_on_selector_all("#layer option", "all => all.map(each => each.value)")
                page.select_option("#layer", layers[1])
                dragged(page, server, root, 2)
                found = {
                    "layer": layers[1],
                    "aim_updates_per_second": AIMS[name],
                    "both_columns": dragged(page, server, root, seconds),
                    "idle_bytes": idle,
                    "idle_bytes_beside_torch": idle - alone,
                }
                if minutes:
                    memory = []
                    end = time.monotonic() + 60 * minutes
                    while time.monotonic() < end:
                        memory.append(
                            {
                                "server": resident(server),
                                "page": page.evaluate("performance.memory.usedJSHeapSize"),
                                "browser": sum(resident(each) for each in family(root) if each.is_running()),
                            }
                        )
                        dragged(page, server, root, min(30.0, max(1.0, end - time.monotonic())))
                    found["minutes"] = minutes
                    found["memory_bytes"] = memory
                browser.close()
            return found
        finally:
            process.send_signal(2)
            process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=0, help="Of a long drag during which memory is read.")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent.parent / "src"))
    result = header()
    with tempfile.TemporaryDirectory() as work:
        for name in args.models:
            result[name] = measured(name, args.seconds, args.minutes, Path(work))
            print(json.dumps({name: result[name]}, indent=1), flush=True)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
