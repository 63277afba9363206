"""The documentation builds without a warning, its links lead somewhere, and it can be read on a phone."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import browse, frame, needs_chromium

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Page(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []  # what a browser fetches by itself
        self.anchors = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(found["href"])
        if "src" in found:
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip('the documentation needs sphinx: pip install "wn-rl[docs]"')
    importlib.import_module("matplotlib.font_manager")  # its first import on a machine says so on stderr
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_links_and_anchors_lead_somewhere(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in anchors:
                broken.append(f"{path.name}: {link}")
    assert not broken
    assert sum(len(page.links) for page in pages.values()) > 500


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for source in page.loaded:
            parts = urlsplit(source)
            assert (parts.scheme, parts.netloc) == ("", ""), f"{path.name} loads {source}"
            assert (path.parent / unquote(parts.path)).is_file(), f"{path.name} lacks {source}"
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.findall(r"url\([\"']?https?:", styles)


def markdown_links() -> Iterator[tuple[Path, str]]:
    """(file, target) of each link in the Markdown files that people read."""
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)]*)\)", text):
            yield path, target


def test_links_to_elsewhere_are_well_formed() -> None:
    external = [target for _, target in markdown_links() if ":" in target]
    assert external
    for target in external:
        parts = urlsplit(target)
        assert parts.scheme == "https", target
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), target
        assert not re.search(r"\s", target)


def test_links_between_files_work_in_the_repository_too() -> None:
    broken = []
    for path, target in markdown_links():
        file = unquote(target.partition("#")[0])
        if ":" not in target and file and not (path.parent / file).is_file():
            broken.append(f"{path.name}: {target}")
    assert not broken


def test_the_curves_are_those_of_their_data() -> None:
    spec = importlib.util.spec_from_file_location("curves", DOCS / "figures" / "curves.py")
    assert spec is not None
    assert spec.loader is not None
    curves = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(curves)
    data = sorted((DOCS / "figures").glob("*.jsonl"))
    assert data
    for file in data:
        assert file.with_suffix(".html").read_text() == curves.curves(file)
    assert [curves.ticks(value) for value in (9.9, 0.13, 22)] == [
        [0, 2, 4, 6, 8],
        pytest.approx([0, 0.05, 0.1]),
        [0, 5, 10, 15, 20],
    ]


MEASURE = """
  onload = () => {
    const wide = {};
    for (const frame of document.querySelectorAll("iframe")) {
      const root = frame.contentDocument.documentElement;
      if (root.scrollWidth > root.clientWidth) wide[frame.src] = root.scrollWidth;
    }
    const text = frames[0].getComputedStyle(frames[0].document.querySelector(".way .t")).fill;
    document.body.innerHTML = "<pre>" + JSON.stringify({wide, text}) + "</pre>";
  };"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_pages_in_a_browser(site: Path, width: int, dark: bool, tmp_path: Path) -> None:
    written = sorted(site.glob("*.html"))
    written.insert(0, written.pop([path.name for path in written].index("dqn.html")))
    pages = [path for path in written if path.name not in ("search.html", "genindex.html")]
    frames = "".join(frame(width, f'src="{path.as_uri()}"') for path in pages)
    measured = browse(frames, MEASURE, tmp_path, dark=dark)
    assert measured["wide"] == {}
    red = int(re.findall(r"\d+", measured["text"])[0])
    assert red > 200 if dark else red < 60
