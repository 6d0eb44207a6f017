"""The promotion notebook in JupyterLab, in a real browser: from top to bottom, and the button that halts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from browser import REMEDY, browser
from quantbench.core.check import QuantbenchError
from quantbench.core.journal import read
from quantbench.ops.gateway import Client
from quantbench.ops.wire import Home
from venues.plain import Venue

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300.0  # seconds: only so that a test that fails ends
MINUTES = 1000 * PATIENCE
READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady && document.querySelector('.jp-Notebook .jp-Cell')"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]  # fmt: skip


CHOSEN: dict[str, dict[str, Any]] = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, seen or not
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def until(true: Callable[[], Any], what: str) -> Any:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


class Lab:
    """JupyterLab on a folder with the notebook in it; its temporary files, and those of its kernels, are in another."""

    def __init__(self, folder: Path, notebook: Path) -> None:
        self.folder, self.room = folder, folder / "t"
        self.room.mkdir()
        shutil.copy(notebook, folder / notebook.name)
        (folder / "quantbench").symlink_to(ROOT / "quantbench")
        own = {
            name: str(folder / name.lower())
            for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")
        }
        for name, chosen in CHOSEN.items():
            place = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            place.parent.mkdir(parents=True)
            place.write_text(json.dumps(chosen))
        own["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
        words = {**os.environ, **own, "TMPDIR": str(self.room), "PYTHONPATH": str(ROOT)}
        command = [
            sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=here", "--LabApp.extension_manager=readonly",
        ]  # fmt: skip
        self.log = (folder / "lab.log").open("wb")
        self.process = subprocess.Popen(command, env=words, cwd=folder, stdout=self.log, stderr=self.log)

    def address(self) -> str:
        """Where it answers."""

        def told() -> str:
            assert self.process.poll() is None, (self.folder / "lab.log").read_text()
            for file in (self.folder / "jupyter_runtime_dir").glob("jpserver-*.json"):
                with suppress(
                    json.JSONDecodeError, URLError
                ):  # it is still being written, or it does not listen yet
                    url = str(json.loads(file.read_text())["url"])
                    with urlopen(f"{url}api", timeout=PATIENCE):
                        return url
            return ""

        return str(until(told, "no JupyterLab came up"))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with TemporaryDirectory(
        prefix="qb", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # a socket's name is short
        made = Lab(Path(folder), ROOT / "nbs" / "runbooks" / "promotion.ipynb")
        yield made
        made.close()


@pytest.fixture
def page() -> Iterator[Page]:
    place = browser()
    assert place is not None, REMEDY
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=place, headless=True, args=FLAGS)
        seen = opened.new_page(viewport={"width": 1300, "height": 1000})
        seen.set_default_timeout(MINUTES)
        yield seen
        opened.close()


class Gateway:
    """A real one for the desk of the notebook, with a venue that lives here."""

    def __init__(self, desk: Path, temporary: Path) -> None:
        self.home = Home.make(desk / "journals" / "gateway")
        self.venue = Venue(desk / "venue.sock")
        words = [
            sys.executable,
            str(ROOT / "tests" / "desks.py"),
            "gateway",
            str(self.home.folder),
            str(self.venue.path),
            "600",
            "no",
        ]
        environment = {
            **os.environ,
            "TMPDIR": str(temporary),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        }
        self.process = subprocess.Popen(words, env=environment)
        until(self.answers, "no gateway came up")

    def answers(self) -> bool:
        assert self.process.poll() is None
        with suppress(QuantbenchError), Client(self.home, seconds=5.0) as client:
            return bool(client.status()["process"] == self.process.pid)
        return False

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.venue.close()


def test_the_button_in_the_promotion_notebook_halts_the_gateway(lab: Lab, page: Page) -> None:
    page.goto(f"{lab.address()}lab/tree/promotion.ipynb?token=here&reset")
    page.wait_for_function(READY)
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    button = page.locator(
        "button.jupyter-button", has_text="Halt"
    )  # its accessible name has the glyph of its icon
    expect(button).to_be_enabled(timeout=MINUTES)
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    shown = page.locator(".jp-Notebook")
    expect(shown).to_contain_text("KnownDrift: paper", timeout=MINUTES)
    desk = next(place.parent for place in lab.room.glob("*/journals"))
    kinds = [record.kind for record in read(desk / "journals" / "promotion.journal")]
    assert kinds == ["promotion", "history"], "promoted, and its session on record"

    gateway = Gateway(desk, lab.room)
    try:
        with Client(gateway.home) as client:
            placed = client.place("Ann Lee", "SPY", "buy", "10")
            assert placed["state"] == "submitted" and client.status()["state"] == "active"
            page.get_by_placeholder("why").fill("the prices look odd")
            button.click()
            expect(button).to_be_disabled(timeout=MINUTES)
            expect(shown).to_contain_text(re.compile("KnownDrift: halted"), timeout=MINUTES)
            assert client.status()["state"] == "halted" and "the prices look odd" in client.status()["why"]
            refused = client.place("Ann Lee", "SPY", "buy", "10")
            assert refused["state"] == "rejected" and len(gateway.venue.sends()) == 1
    finally:
        gateway.close()
    last = list(read(desk / "journals" / "promotion.journal"))[-2:]
    assert {record.kind for record in last} == {"promotion", "revocation"}
    assert any(record.payload.get("to") == "halted" for record in last)
