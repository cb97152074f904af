"""The notebooks and the explorers in a real browser, as their users see them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Where to keep the screenshots; default: the test's own temporary folder.
SCREENSHOTS = os.environ.get("LTML_SCREENSHOTS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]


@pytest.fixture
def page(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


@pytest.fixture
def screenshot(page, tmp_path):
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: page.screenshot(path=folder / f"{name}.png")


@contextmanager
def serving(command, folder, ready, *, seconds=90):
    """Start a server in a folder; yield the first match of ``ready`` in what it prints."""
    log = folder / "server.log"
    # Nobody's own settings, and none of theirs written.
    own = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONUNBUFFERED": "1"}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "s"), "JUPYTERLAB_WORKSPACES_DIR": str(folder)}
    quiet = folder / "jupyter_config_dir" / "labconfig"
    quiet.mkdir(parents=True)
    announcements = "@jupyterlab/apputils-extension:announcements"  # a question over the page
    (quiet / "page_config.json").write_text(
        f'{{"disabledExtensions": {{"{announcements}": true}}}}'
    )
    with log.open("w") as out:
        server = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=os.environ | own
        )
    try:
        end = time.monotonic() + seconds
        while not (found := re.search(ready, log.read_text())):
            if server.poll() is not None or time.monotonic() > end:
                raise AssertionError(log.read_text()[-2000:])
            time.sleep(0.2)
        yield found
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    """Wait until a server takes connections."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens on port {port}")


def drag_changes_picture_and_text(page):
    """Move the last slider of training steps by a key, as a drag would, and look what follows."""
    slider = page.locator(".widget-slider", has_text=re.compile("step")).last
    explorer = slider.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]")
    picture = explorer.locator("img.widget-image").first
    text = explorer.locator(":scope > .widget-html").last
    slider.scroll_into_view_if_needed()
    before = picture.get_attribute("src"), text.inner_text()
    slider.locator(".noUi-handle").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    changed = "([image, source]) => image.src !== source"
    page.wait_for_function(changed, arg=[picture.element_handle(), before[0]])
    page.wait_for_timeout(1500)  # the second move
    assert text.inner_text() != before[1]
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")


def test_a_notebook_in_jupyterlab(page, screenshot, tmp_path):
    name = "02_gradient_imbalance.ipynb"
    shutil.copy(ROOT / "notebooks" / name, tmp_path)
    port, token = free_port(), "only-for-this-test"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += ["--allow-root"] if os.name == "posix" and os.geteuid() == 0 else []
    with serving([*command, f"--notebook-dir={tmp_path}"], tmp_path, "http://127"):
        answers(port)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/{name}?token={token}")
        page.locator(".jp-Notebook").wait_for()
        page.locator(".jp-NotebookPanel-toolbar").wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        last = page.locator(".jp-CodeCell .jp-InputPrompt").last
        page.wait_for_function(
            "prompt => /[0-9]/.test(prompt.textContent)",
            arg=last.element_handle(),
            timeout=300_000,
        )
        assert page.locator(".jp-OutputArea-output", has_text="Traceback").count() == 0
        screenshot("lab_before")
        drag_changes_picture_and_text(page)
        screenshot("lab_after")


def test_explorers_without_code(page, screenshot, tmp_path):
    runs = tmp_path / "runs"
    for run in (ROOT / "figures" / "records").iterdir():
        shutil.copytree(run, runs / run.name)
    command = [sys.executable, "-m", "ltml.cli", "explore", str(runs), "--no-browser"]
    with serving([*command, "--port", str(free_port())], tmp_path, r"http://\S+") as address:
        answers(int(re.search(r":(\d+)/", address[0])[1]))
        refused = page.goto(address[0].split("?")[0])
        assert "/login" in page.url or refused.status in (401, 403)  # not without the address
        page.goto(address[0])
        page.locator("img.widget-image").first.wait_for(timeout=120_000)
        screenshot("explore_gradients")
        drag_changes_picture_and_text(page)
        for tab in ("Sampling", "Gradient balancing", "Feature diversity", "Compare runs"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_function(
                "() => [...document.querySelectorAll('.widget-html p')]"
                ".some(p => p.offsetParent && p.textContent.length > 20)"
            )
            page.wait_for_timeout(1500)
            screenshot(f"explore_{tab.lower().replace(' ', '_')}")
        assert page.locator(":text('Traceback')").count() == 0
