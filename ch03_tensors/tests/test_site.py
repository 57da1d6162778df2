"""The pages: what stands on them, that every link leads somewhere, and how they behave in a real browser."""

import html
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import pytest

from book import flowchart, web
from book.markdown_pages import MERMAID
from book.pieces import read
from book.web import groups, search_index, write_site
from lessons import MODULES, __main__

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAMES = ["creation", "arithmetic"]
README = """# The <b>course</b> & more

[lesson](ch03_tensors/lessons/creation.py#L{line}), [other](ch04_x/a.py#L2), [page](ch04_x/README.md#two-words), [out](https://example.org/),
[folder](ch04_x/data)

<img src="ch04_x/p.png" alt="p">

| a | b |
|---|---|
| `<i>` | 2 |

```mermaid
flowchart LR
    own[your data] --> datasets.py
    datasets.py -- train, val --> train.py
    train.py --> run["runs/NAME: args.json, best.pt"]
    run --> test.py
    datasets.py -- test --> test.py
```

```mermaid
pie
    "a" : 1
```
"""


def fake_root(folder: Path) -> Path:
    """A repository of two pages, a picture and a source file."""
    (folder / "ch04_x").mkdir()
    source = (Path(web.__file__).parents[1] / "lessons" / "creation.py").read_text("utf-8").splitlines()
    line = 1 + next(k for k, text in enumerate(source) if text.startswith("def filled"))
    (folder / "README.md").write_text(README.format(line=line))
    (folder / "README.zh-CN.md").write_text(
        "# 课程\n\n[第四章](ch04_x/README.md)、[第三章](ch03_tensors/lessons/creation.py)\n"
    )
    (folder / "ch04_x" / "README.md").write_text("# Four\n\n## Two words\n\n[up](../README.md)\n")
    (folder / "ch04_x" / "a.py").write_text('x = "<b>"\ny = 2\n')
    (folder / "ch04_x" / "p.png").write_bytes(b"png")
    (folder / "ch04_x" / "data" / "deep").mkdir(parents=True)
    (folder / "ch04_x" / "data" / "deep" / "a.txt").write_text("1 < 2")
    (folder / "ch04_x" / "data" / "model.bin").write_bytes(b"\0\0")
    (folder / "ch03_tensors" / "lessons").mkdir(parents=True)
    (folder / "ch03_tensors" / "lessons" / "creation.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_site(folder / "site", NAMES, ["en", "zh"], str(fake_root(tmp_path_factory.mktemp("root"))))
    return folder / "site"


def links(page: Path) -> list[str]:
    tags = re.findall(r"<(?:a|img|link|script)\b[^>]*>", page.read_text("utf-8"))
    return [html.unescape(target) for tag in tags for target in re.findall(r'(?:href|src)="([^"]*)"', tag)]


def test_every_link_leads_to_a_file_and_a_name_in_it_and_nothing_is_asked_of_the_network(site):
    count = 0
    for page in site.rglob("*.html"):
        for target in links(page):
            if target == "https://example.org/":
                continue
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.is_file(), f"{page}: {target}"
            assert not anchor or f'id="{anchor}"' in there.read_text("utf-8"), f"{page}: {target}"
            count += 1
    assert count > 100
    assets = "".join((site / "assets" / name).read_text("utf-8") for name in ("style.css", "site.js"))
    assert "http" not in assets and "url(" not in assets and "@import" not in assets


def test_links_between_markdown_pages_lessons_and_sources_are_turned(site):
    english, chinese = (site / "pages" / name for name in ("README.html", "README.zh-CN.html"))
    assert {
        "../lessons/creation.html#filled",
        "ch04_x/a.py.html#L2",
        "ch04_x/README.html#two-words",
        "ch04_x/p.png",
        "../pages/README.zh-CN.html",
    } <= set(links(english))
    assert {"../lessons/creation.zh-CN.html", "ch04_x/README.html", "../pages/README.html"} <= set(links(chinese))
    assert (site / "pages/ch04_x/p.png").read_bytes() == b"png"
    inside = [target for target in links(site / "pages/ch04_x/data.html") if target.startswith("data")]
    assert inside == ["data/deep/a.txt.html"], "a folder is a list of its text files"


def test_text_is_escaped(site):
    page = (site / "pages/ch04_x/a.py.html").read_text("utf-8")
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert "&lt;i&gt;" in (site / "pages/README.html").read_text("utf-8")
    lesson = (site / "lessons/creation.html").read_text("utf-8")
    assert "{name:&lt;10}" in re.sub(r"<[^>]+>", "", lesson), "a format in an example"


def test_a_flow_chart_is_a_picture_and_another_kind_of_chart_stays_as_it_is(site):
    page = (site / "pages/README.html").read_text("utf-8")
    assert page.count("<svg") == 1 and "flowchart LR" not in page and "pie" in page
    assert 'aria-label="your data → datasets.py; datasets.py → train.py;' in page and ">train, val</text>" in page


def test_boxes_do_not_overlap_and_an_edge_passes_none_that_is_not_its_own():
    chart = "flowchart LR\n a[two words] --> b\n c --> b\n d --> e\n b -- x, y --> e\n e --> f[many words that fill lines]\n"
    labels, edges = flowchart.parse(chart + " f --> g\n b -- z --> g")
    boxes, ways = flowchart.layout(labels, edges)
    everything = [*boxes.values(), *(box for way in ways for box in way[1:-1])]
    for one, other in itertools.combinations(everything, 2):
        apart = abs(one.y - other.y) >= (one.height + other.height) / 2
        assert apart or one.x + one.width <= other.x or other.x + other.width <= one.x, (one, other)
    for way, (start, end, _) in zip(ways, edges, strict=True):
        assert way[0] is boxes[start] and way[-1] is boxes[end]
        assert [box.rank for box in way] == list(range(way[0].rank, way[-1].rank + 1))
        drawn = [
            float(number) for number in re.findall(r"[\d.-]+", re.search(r' d="([^"]*)"', flowchart.arrow(way, ""))[1])
        ]
        assert drawn[-2:] == pytest.approx([boxes[end].x, boxes[end].y], abs=0.06)
        assert drawn[:2] == pytest.approx([boxes[start].x + boxes[start].width, boxes[start].y], abs=0.06)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_chart_of_the_front_page_can_be_drawn(name):
    page = Path(web.__file__).parents[2] / name
    if not (page.parent / "LESSONS.md").exists():
        pytest.skip("this folder was taken out of the course")
    (chart,) = MERMAID.findall(page.read_text("utf-8"))
    assert flowchart.svg(chart).count("<rect") == 9


def test_a_lesson_page_has_texts_sources_examples_and_outputs_in_their_order(site):
    page = html.unescape(re.sub(r"<[^>]+>", "", (site / "lessons/creation.html").read_text("utf-8")))
    order = [
        "Creating tensors",
        "from torch import Tensor",
        "Positions, time steps",
        "def checkerboard(size: int)",
        "torch.arange(0, 10, 3)",
        "tensor([0, 3, 6, 9])",
        "Arithmetic, in-place",
    ]
    at = [page.rindex(part) for part in order]
    assert at == sorted(at) and '"""' not in page
    notebook = nbformat.read(site / "notebooks/creation.ipynb", 4)
    assert notebook.cells[0].source.startswith("# Creating tensors")


def test_the_search_index_knows_numbers_functions_torch_names_and_chinese_titles():
    rows = search_index(list(MODULES))

    def found(word: str, kind: str) -> set[str]:
        return {f"{row['page']}#{row['at']}" for row in rows if row["kind"] == kind and word in row["keys"]}

    assert found("3-19", "lesson") == {"lessons/linalg#"}
    assert found("创建", "lesson") == {"lessons/creation#"}
    assert found("torch.gather", "API") == {"lessons/indexing#gather_rows"}
    assert "lessons/linalg#pca" in found("pca", "function")
    assert len(rows) == len({json.dumps(row) for row in rows}) > 400


def test_the_index_page_has_all_lessons_in_the_order_of_the_course():
    chapters = groups(list(MODULES))
    assert [number for number, _, _ in chapters] == ["3", "4", "5", "6", "9", "10"]
    assert [lesson.name for _, _, lessons in chapters for lesson in lessons] == list(MODULES)


def test_named_lessons_are_written_once_and_in_order(monkeypatch):
    written = []
    monkeypatch.setattr(web, "write_site", lambda folder, *words: written.append(words) or 0)
    assert __main__.main(["--html", "pages", "3-10", "creation", "arithmetic"]) == 0
    assert __main__.main(["--html", "pages", "创建", "--lang", "zh", "--markdown", ".."]) == 0
    assert written == [(["creation", "arithmetic"], ["en", "zh"], None), (["creation"], ["zh"], "..")]


def test_a_folder_with_files_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(SystemExit, match="holds other files"):
        write_site(tmp_path, ["creation"], ["en"])
    assert (tmp_path / "index.html").read_text() == "mine"


def test_one_language_alone_has_no_links_to_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "outputs", lambda lesson: {s.name: [web.Output("")] * 50 for s in lesson.sections})
    write_site(tmp_path / "site", ["indexing"], ["zh"])
    write_site(tmp_path / "site", ["indexing"], ["zh"])  # its own folder may be written again
    pages = [path.name for path in (tmp_path / "site").rglob("*.html")]
    assert sorted(pages) == ["index.zh-CN.html", "indexing.zh-CN.html"]
    page = (tmp_path / "site/lessons/indexing.zh-CN.html").read_text("utf-8")
    assert 'lang="zh-CN"' in page and read("indexing").title_zh in page and "English" not in page


# ---- in a browser --------------------------------------------------------------------------------------------------


class Browser:
    """Chromium without a window, driven over a pipe: JSON messages of the DevTools protocol, a zero byte after each."""

    def __init__(self, folder: Path):
        flags = (
            "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --remote-debugging-pipe"
        )
        words = [CHROMIUM, *flags.split(), f"--user-data-dir={folder}", "about:blank"]
        pipes = ["sh", "-c", 'exec "$@" 3<&0 4>&1 >/dev/null 2>&1', "sh", *words]  # it reads from 3 and writes to 4
        self.process = subprocess.Popen(pipes, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.count, self.session = 0, {}
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, method: str, **params) -> dict:
        """-> the answer to a command: {"result": ...} or {"error": ...}."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params, **self.session}
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while True:
            data = b""
            while (byte := self.process.stdout.read(1)) != b"\0":
                assert byte, "Chromium ended"
                data += byte
            answer = json.loads(data)
            if answer.get("id") == self.count:
                return answer

    def send(self, method: str, **params) -> dict:
        answer = self.ask(method, **params)
        assert "error" not in answer, answer
        return answer["result"]

    def run(self, script: str):
        """-> the value of a JavaScript expression on the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Asks until the expression is true. A page that is about to be left answers with an error: asked again."""
        end, answer = time.monotonic() + 30, {}
        while not answer.get("result", {}).get("result", {}).get("value"):
            assert time.monotonic() < end, (script, answer)
            time.sleep(0.05)
            answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)

    def leave(self, script: str) -> None:
        """Runs what leads to another page, a moment after its answer was sent."""
        self.run(f"setTimeout(() => {script}, 10); 0")

    def open(self, page: Path) -> None:
        self.send("Page.navigate", url=page.as_uri())
        self.wait_for(
            f"location.pathname.endsWith({page.name!r}) && document.readyState === 'complete' && !!window.INDEX"
        )

    def find(self, text: str) -> list[str]:
        """Types into the search box -> what it offers."""
        self.run(f"search.value = {json.dumps(text)}; search.dispatchEvent(new Event('input'))")
        return self.run("[...document.querySelectorAll('#found li')].map(item => item.innerText)")

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close(), self.process.stdout.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM or os.name == "nt":
        pytest.skip("no Chromium here")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_from_the_index_to_broadcasting_to_its_notebook(browser, site):
    browser.open(site / "index.html")
    assert browser.find("broadcast")[0].startswith("Arithmetic, in-place, broadcasting")
    assert any("torch.broadcast_shapes" in text for text in browser.find("broadcast_sh"))
    assert browser.find("3-4")[0].startswith("Creating tensors")
    assert browser.find("创建")[0].startswith("Creating tensors")
    assert browser.find("no such thing") == ["nothing found"]
    browser.find("broadcast")
    browser.leave("search.form.requestSubmit()")
    browser.wait_for("location.pathname.endsWith('lessons/arithmetic.html') && document.readyState === 'complete'")
    assert "Broadcasting" in browser.run("document.getElementById('add_bias').innerText")
    figure = "document.querySelector('#add_bias .source + figure img')"
    browser.wait_for(f"{figure}.complete && {figure}.naturalWidth > 300")
    address = browser.run("document.querySelector('a[download]').href")
    assert Path(address.removeprefix("file://")).read_text("utf-8").startswith("{")
    browser.leave("document.querySelector('[rel=prev]').click()")
    browser.wait_for("location.pathname.endsWith('lessons/creation.html') && document.readyState === 'complete'")
    browser.leave("document.querySelector('header nav a').click()")
    browser.wait_for("location.pathname.endsWith('creation.zh-CN.html') && document.readyState === 'complete'")
    assert browser.run("document.documentElement.lang") == "zh-CN"


def test_dark_and_light(browser, site):
    browser.open(site / "lessons" / "creation.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    seen = [browser.run(colour)]
    for _ in range(2):
        browser.run("theme.click()")
        seen.append(browser.run(colour))
    assert seen[0] == seen[2] != seen[1]
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.run("localStorage.clear(); delete document.documentElement.dataset.theme")
    assert browser.run(colour) == seen[1]
    browser.send("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize(
    "page", ["index.html", "lessons/arithmetic.html", "pages/README.html", "pages/ch04_x/a.py.html"]
)
def test_nothing_is_wider_than_a_phone(browser, site, page):
    browser.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    browser.open(site / page)
    assert browser.run("document.documentElement.scrollWidth") == 360
    assert browser.run("parseFloat(getComputedStyle(document.body).fontSize)") >= 14
    browser.send("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("page", ["index.html", "lessons/arithmetic.html", "pages/README.html"])
def test_no_script_fails_and_nothing_is_missing(browser, site, page):
    browser.send("Page.navigate", url="about:blank")
    browser.open(site / page)
    missing = "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('file:')).map(e => e.name)"
    assert browser.run(missing) == []
    assert browser.run("typeof theme.onclick") == "function"
