"""What headless Chromium makes of a page."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: install the package chromium to test in a browser"
)


def browse(frames: str, script: str, folder: Path, *, dark: bool) -> dict[str, Any]:
    """What a script finds out about <iframe>s and writes into a <pre> as JSON.

    Frames, since Chromium's own windows are never as narrow as a phone. folder: for its profile.
    """
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{frames}<script>{script}</script>")
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}"),
        *("--window-size=1300,900", "--hide-scrollbars", "--dump-dom"),
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
    ]
    dom = subprocess.run(
        [str(CHROMIUM), *flags, wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    found = re.search(r"<pre>(.*?)</pre>", dom, re.DOTALL)
    assert found is not None, dom[-500:]
    measured = json.loads(html.unescape(found[1]))
    assert isinstance(measured, dict)
    return measured


def frame(width: int, source: str) -> str:
    """An <iframe> of that width; source: its src or srcdoc attribute."""
    return f'<iframe style="border:0" width="{width}" height="800" {source}></iframe>'
