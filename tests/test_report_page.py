import html
import re
from pathlib import Path

import numpy as np
import pytest
from browser import browse, frame, needs_chromium
from report_tools import write_arm, write_run

from wn_rl.report.blocks import Bullets, Caution, Clip, Clips, Code, Section, Table, Text
from wn_rl.report.figures import FOREGROUND, PALETTE, Look, make_figure
from wn_rl.report.markdown import render_markdown
from wn_rl.report.page import MAX_EMBEDDED_BYTES, render_page, slug
from wn_rl.report.records import Method
from wn_rl.report.words import interval, listed, score, seeds_between, signed
from wn_rl.report.writer import Request, write_report
from wn_rl.stats import Estimate

MINUS = "\N{MINUS SIGN}"
NASTY = '<script>alert("x")</script> & |v|'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1448.2, "1,448"),
        (99.96, "100"),
        (23.94, "23.9"),
        (6.1, "6.10"),
        (0.62, "0.62"),
        (0.0312, "0.031"),
        (-0.004, f"{MINUS}0.004"),
        (0.0002, "0.0002"),
        (0.0, "0.00"),
        (-3.0, f"{MINUS}3.00"),
    ],
)
def test_scores_have_three_digits_or_so_and_are_zero_only_if_they_are(value: float, text: str) -> None:
    assert score(value) == text


def test_signs_and_lists() -> None:
    assert [signed(value) for value in (1.0, 0.0, -1.0)] == ["+1.00", "0.00", f"{MINUS}1.00"]
    assert [listed(items) for items in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_an_interval_that_every_resample_agrees_on_is_not_shown() -> None:
    shown = [interval(Estimate(1.0, *ends)) for ends in ((0.5, 1.2), (1.0, 1.0), (None, None))]
    assert shown == [" [0.50, 1.20]", "", ""]


def test_numbers_of_seeds() -> None:
    assert [seeds_between(numbers) for numbers in ([3, 3], [1], [0, 3, 2])] == [
        "3 seeds",
        "1 seed",
        "0 to 3 seeds",
    ]


def test_links_and_file_names() -> None:
    assert slug("minatar, 300,000 steps") == "minatar-300000-steps"
    assert slug("weight norm at 0.0003") == "weight-norm-at-0.0003"


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_from_both_backgrounds() -> None:
    page = render_page("t", [])
    light, dark = re.findall(r"--back: (#\w{6})", page)
    texts = re.findall(r"--(?:text|soft|link): (#\w{6})", page)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for background, colours in ((light, texts[:3]), (dark, texts[3:])):
        assert all(contrast(colour, background) >= 3 for colour in PALETTE)
        assert all(contrast(colour, background) >= 4.5 for colour in colours)


def test_a_method_looks_alike_in_every_report() -> None:
    weight_norm, batch_norm, other = (
        Method("weight_norm"),
        Method("batch_norm"),
        Method("weight_norm", (("log_scale", 3.0),)),
    )
    everywhere = [Look(methods).of(weight_norm) for methods in ([weight_norm], [batch_norm, other, weight_norm])]
    assert everywhere[0] == everywhere[1]
    assert len({Look([other]).of(m)["color"] for m in (weight_norm, batch_norm, other, Method("normal"))}) == 4


def test_figures_are_the_same_every_time_and_take_the_colour_of_the_page() -> None:
    one, again = (make_figure("a", "t", "c", [lambda axes: axes.plot([1, 2], label="x")]) for _ in range(2))
    assert (one.png, one.svg) == (again.png, again.svg)
    assert FOREGROUND in one.svg
    from wn_rl.report.blocks import Figures

    page = render_page("t", [Section("s", (Figures((one,)),))])
    assert "currentColor" in page
    assert FOREGROUND not in page.split("</style>", 1)[1]


def every_block() -> list[Section]:
    blocks = (
        *(Text(NASTY), Caution(NASTY), Bullets((NASTY,)), Code(NASTY, NASTY)),
        Table(NASTY, (NASTY, "n"), ((NASTY, "1"),)),
        Clips((Clip(NASTY, "videos/a.mp4", b"abc"),)),
    )
    return [Section(NASTY, blocks)]


def test_no_text_becomes_markup() -> None:
    page = render_page(NASTY, every_block())
    assert "<script" not in page
    assert page.count(html.escape(NASTY)) >= 9
    assert "<script" not in render_markdown(NASTY, every_block()).replace("\\<", "").replace(f"```\n{NASTY}", "")


def test_markdown_tables_keep_their_columns() -> None:
    lines = render_markdown("t", [Section("s", (Table("c", ("a|b", "n"), (("|v|", "1"),)),))]).splitlines()
    assert lines[-3:] == ["| a\\|b | n |", "|---|---:|", "| \\|v\\| | 1 |"]


def test_small_videos_are_in_the_page_and_large_ones_beside_it() -> None:
    clips = Clips(
        (Clip("small", "videos/s.mp4", b"x"), Clip("large", "videos/l.mp4", bytes(MAX_EMBEDDED_BYTES + 1)))
    )
    page = render_page("t", [Section("s", (clips,))])
    assert 'src="data:video/mp4;base64,eA=="' in page
    assert '<a href="videos/l.mp4">' in page
    assert len(page) < MAX_EMBEDDED_BYTES


def write_everything(root: Path) -> Path:
    """A report with every section, four methods and a folder name that does not end."""
    for method, score_of in (
        ("normal", 1.0),
        ("weight_norm", 2.0),
        ("batch_norm", 1.5),
        ("weight_norm_mean_only_bn", 3),
    ):
        for game in ("breakout", "space_invaders"):
            for rate in (1e-4, 3e-4):
                curves = [[score_of, score_of + rate * seed * 1e4] for seed in range(3)]
                write_arm(root / "runs", curves, game=game, parameterization=method, rate=rate, norms=[1, 2])
    write_run(
        root / "runs" / ("a-name-that-does-not-end" * 8), [1.0], steps=500, status="failed", message="x" * 200
    )
    return write_report(Request([root / "runs"], root / "report"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_everything(tmp_path_factory.mktemp("everything")).read_text()


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert len(sources) > 100
    assert all(source.startswith(("#", "data:")) for source in sources)
    assert "<script" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


MEASURE = """
  onload = () => {
    const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
    const wide = [...inner.querySelectorAll("body *")].filter(e => !e.closest("svg") && !e.closest("pre")
      && !e.closest("details") && e.getBoundingClientRect().right > root.clientWidth + 1);
    const figures = [...inner.querySelectorAll("figure svg")].map(e => e.getBoundingClientRect());
    const text = inner.querySelector("figure svg text");
    document.body.innerHTML = "<pre>" + JSON.stringify({
      width: root.scrollWidth, overflowing: wide.map(e => e.outerHTML.slice(0, 80)),
      background: getComputedStyle(inner.body).backgroundColor,
      figureWidths: figures.map(box => box.width), figureHeights: figures.map(box => box.height),
      figureText: getComputedStyle(text).fill, bodyText: getComputedStyle(inner.body).color,
      headings: [...inner.querySelectorAll("h2")].map(e => e.id),
      dangling: [...inner.querySelectorAll("nav a")].map(e => e.getAttribute("href"))
        .filter(href => !inner.querySelector(CSS.escape(href).replace(/^\\\\#/, "#"))),
    }) + "</pre>";
  };"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 380, 1200])
def test_the_page_in_a_browser(page: str, width: int, dark: bool, tmp_path: Path) -> None:
    measured = browse(frame(width, f'srcdoc="{html.escape(page)}"'), MEASURE, tmp_path, dark=dark)
    assert measured["width"] == width
    assert measured["overflowing"] == []
    assert measured["dangling"] == []
    assert measured["headings"] == ["in-short", "minatar-200-steps", "how-the-numbers-are-made", "left-out"]
    assert measured["background"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert measured["figureText"] == measured["bodyText"] == ("rgb(227, 231, 235)" if dark else "rgb(31, 36, 41)")
    figure_widths, figure_heights = measured["figureWidths"], measured["figureHeights"]
    assert isinstance(figure_widths, list)
    assert isinstance(figure_heights, list)
    assert len(figure_widths) > 10
    assert min(figure_widths) > 300  # at 330 their text has its nominal ten pixels
    assert all(0.6 < high / wide < 0.8 for high, wide in zip(figure_heights, figure_widths, strict=True))
