"""The page, in a real browser without a screen: how it opens; a chosen, a dropped and a pasted file; bars; errors."""

import base64
import io
import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from service.load_generator import good_cases

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM or os.name == "nt", reason="no Chromium here")


class Browser:
    """Chromium without a screen, spoken to in its DevTools protocol over a pipe: JSON messages, each ended by a zero byte."""

    def __init__(self, folder):
        flags = (
            "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --remote-debugging-pipe"
        )
        flags = [*flags.split(), f"--user-data-dir={folder / 'profile'}", "about:blank"]
        pipes = ["sh", "-c", 'exec "$@" 3<&0 4>&1 >/dev/null 2>&1', "sh", CHROMIUM, *flags]  # it reads 3 and writes 4
        self.process = subprocess.Popen(pipes, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.number, self.session = 0, None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def send(self, method: str, **params) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while True:
            data = bytearray()
            while (byte := self.process.stdout.read(1)) != b"\0":
                assert byte, "Chromium ended"
                data += byte
            answer = json.loads(data)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str):
        """-> the value of a JavaScript expression on the page."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str):
        deadline = time.time() + 20
        while not (value := self.run(script)):
            assert time.time() < deadline, self.run("document.body.innerText")
            time.sleep(0.05)
        return value

    def open(self) -> None:
        self.send("Page.navigate", url=self.url)
        self.wait_for("document.readyState === 'complete' && !!document.getElementById('file')")

    def screenshot(self) -> np.ndarray:
        """-> (H, W, 3) uint8, what the page looks like."""
        data = self.send("Page.captureScreenshot")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def page(service, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("page"))
    try:
        browser.url = f"http://127.0.0.1:{service.port}/"
        browser.open()
        yield browser
    finally:
        browser.close()


CELL = "cell => cell.textContent || cell.style.width"
ROWS = f"[...document.querySelectorAll('.row')].map(row => [...row.children].map({CELL}))"
# a File with the bytes of a picture, as a drop or a paste brings it
FILE = "(data => (data.items.add(new File([new Uint8Array({bytes})], 'a.png')), data))(new DataTransfer())"


def rows_of(page, name: str) -> list:
    """Waits until the answer is `name` -> the rows that the page shows, which must be sound."""
    page.wait_for(f"document.querySelector('.row')?.children[0].textContent === {name!r}")
    rows = page.run(ROWS)
    assert len(rows) == 5 and all(float(width[:-1]) == float(share[:-2]) for _, width, share in rows)
    bars = page.run("[...document.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect().width)")
    assert bars == sorted(bars, reverse=True) and bars[0] > 50
    assert page.run("document.getElementById('shown').naturalWidth") == 32
    assert page.run("document.getElementById('said').textContent") == "32 × 32"
    return rows


def test_it_opens_without_a_broken_picture(page):
    """As it looks where there is no element for a picture at all."""
    page.open()
    opened = page.screenshot()
    assert (opened < 250).any(), "something is on it"
    page.run("document.getElementById('shown').remove()")
    assert np.array_equal(opened, page.screenshot())
    page.open()


def test_a_chosen_file(page, tmp_path):
    (tmp_path / "sign.png").write_bytes(good_cases(3)[2].body)
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "sign.png")])
    rows_of(page, "no_entry")


def test_a_dropped_file(page):
    data = FILE.format(bytes=list(good_cases(1)[0].body))
    page.run(f"document.dispatchEvent(new DragEvent('drop', {{dataTransfer: {data}, cancelable: true}}))")
    rows_of(page, "stop")


def test_a_pasted_file(page):
    data = FILE.format(bytes=list(good_cases(10)[9].body))
    page.run(f"document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: {data}}}))")
    rows_of(page, "roundabout")


def test_what_is_no_picture_is_said_and_shows_no_bars(page):
    data = FILE.format(bytes=list(b"Dear Sir or Madam"))
    page.run(f"document.dispatchEvent(new DragEvent('drop', {{dataTransfer: {data}, cancelable: true}}))")
    assert "not a picture" in page.wait_for("document.querySelector('#said.error')?.textContent")
    assert page.run(ROWS) == []


def test_a_class_name_cannot_smuggle_in_a_script(page):
    page.run("show([{name: '<img src=x onerror=\"window.evil = 1\">', probability: 1}])")
    assert page.run("document.querySelector('.row img') === null && window.evil === undefined")
