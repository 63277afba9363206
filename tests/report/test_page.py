"""What the report says, and the page and Markdown that say it."""

import html
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from browser import browse, frame, needs_chromium
from report_tools import found, write_arm, write_pair, write_run

from wn_rl.compare.arms import Arm
from wn_rl.report.content import make_chapter
from wn_rl.report.figures import FOREGROUND, PALETTE, make_picture, pictures_of, style_of
from wn_rl.report.render import (
    MAX_EMBEDDED_BYTES,
    Chapter,
    Clip,
    Fold,
    Table,
    escape_markdown,
    markdown_table,
    render_markdown,
    render_page,
    say,
)
from wn_rl.report.stats import COVERAGE, Estimate
from wn_rl.report.words import listed, score, slug, with_interval
from wn_rl.report.writer import write_report

MINUS = "\N{MINUS SIGN}"
NASTY = '</pre></summary><script>alert("x")</script> & |v| ![a](b)\n\n# {{ 123450 + 6 }} `'


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


def test_words_for_numbers() -> None:
    assert [listed("abc"[:length]) for length in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert [slug(title) for title in ("minatar, 300,000 steps", "A/b\n")] == ["minatar-300000-steps", "a-b-"]
    signed = [with_interval(Estimate(value), signed=True) for value in (1.0, 0.0, -1.0)]
    assert signed == ["+1.00", "0.00", f"{MINUS}1.00"]
    shown = [with_interval(Estimate(1.0, *ends)) for ends in ((0.5, 1.2), (1.0, 1.0), (None, None))]
    assert shown == ["1.00 [0.50, 1.20]", "1.00", "1.00"]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_from_both_backgrounds() -> None:
    page = render_page("t", [], [])
    light, dark = re.findall(r"--back: (#\w{6})", page)
    texts = re.findall(r"--(?:text|soft|link): (#\w{6})", page)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for background, colours in ((light, texts[:3]), (dark, texts[3:])):
        assert all(contrast(colour, background) >= 3 for colour in PALETTE)
        assert all(contrast(colour, background) >= 4.5 for colour in colours)


def test_a_method_looks_alike_in_every_report() -> None:
    weight_norm, batch_norm = Arm("weight_norm"), Arm("batch_norm")
    other = Arm("weight_norm", None, (("log_scale", 3),))
    everywhere = [style_of(weight_norm, methods) for methods in ([weight_norm], [batch_norm, other, weight_norm])]
    assert everywhere[0] == everywhere[1]
    assert len({style_of(m, [other])["color"] for m in (weight_norm, batch_norm, other, Arm("normal"))}) == 4


def test_figures_are_the_same_every_time_and_take_the_colour_of_the_page() -> None:
    one, again = (make_picture("a", "c", [lambda axes: axes.plot([1, 2], label="$x")]) for _ in range(2))
    assert (one.png, one.svg) == (again.png, again.svg)
    assert ">$x</text>" in one.svg  # not a formula
    assert FOREGROUND in one.svg
    page = render_page("t", [], [Fold("f", pictures=[one])])
    assert "currentColor" in page
    assert FOREGROUND not in page.split("</style>", 1)[1]


def everything_nasty() -> tuple[str, list[Chapter], list[Fold]]:
    picture = make_picture("name", NASTY, [lambda axes: axes.set_title(NASTY)])
    table = Table(NASTY, [NASTY, "n"], [[NASTY, "1"]])
    fold = Fold(NASTY, [NASTY], [table], [picture], [Clip(NASTY, "videos/a.mp4", b"abc")], NASTY)
    return NASTY, [Chapter(NASTY, [NASTY], [picture], table, [NASTY], [fold])], [fold]


def test_no_text_becomes_markup() -> None:
    page = render_page(*everything_nasty())
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 20
    assert "123456" not in page
    markdown = render_markdown(*everything_nasty())
    assert "<script" not in re.sub(r"\\<", "", markdown)
    outside = re.sub(r"(?s:<pre>.*?</pre>)|<summary>.*", "", markdown)
    assert "![a]" not in outside
    assert not re.search(r"^# \{\{", outside, re.MULTILINE)
    assert len(re.findall(r"(?<!\\)</pre>", markdown)) == markdown.count("<pre>") == 2


def test_names_in_sentences_stay_in_their_line() -> None:
    assert say("settings", made_by={"a\nb": 1})[0] == "1 run: a b"


def test_markdown_tables_keep_their_columns() -> None:
    lines = markdown_table(["a|b", "n"], [["|v|", "1\n2"]]).splitlines()
    assert lines == ["| a\\|b | n |", "|---|---|", "| \\|v\\| | 1 2 |"]
    assert escape_markdown("weight_norm *a* _b_") == "weight_norm \\*a\\* \\_b\\_"


def test_small_videos_are_in_the_page_and_large_ones_beside_it() -> None:
    clips = [Clip("small", "videos/s.mp4", b"x"), Clip("large", "videos/l.mp4", bytes(MAX_EMBEDDED_BYTES + 1))]
    page = render_page("t", [], [Fold("f", clips=clips)])
    assert 'src="data:video/mp4;base64,eA=="' in page
    assert '<a href="videos/l.mp4">' in page
    assert len(page) < MAX_EMBEDDED_BYTES


def chapter_of(root: Path) -> Chapter:
    findings = found(root)
    return make_chapter(findings, pictures_of(findings), Fold("none"), [findings.comparison], 0)


def test_the_notes_say_how_often_intervals_are_wrong_at_these_seeds(tmp_path: Path) -> None:
    assert COVERAGE == {3: 0.79, 5: 0.87, 10: 0.91}  # 1 / 0.21, 1 / 0.13 and 1 / 0.09
    write_pair(tmp_path / "one", [[1], [1.1], [1.2]], [[2], [2.1], [2.2]])
    (note,) = chapter_of(tmp_path / "one").notes
    assert note.startswith("The table rests on 1 separate 95% interval. With few seeds they are too narrow")
    assert "about 1 in 5 with 3 seeds, 1 in 8 with 5 and 1 in 11 with 10 still exclude zero, " in note
    for game in ("breakout", "seaquest"):
        write_pair(tmp_path / "two", [[1], [2], [4]], [[1], [2], [3]], game=game)
    (note,) = chapter_of(tmp_path / "two").notes  # two games, and both together
    assert note.startswith("The table rests on 3 separate 95% intervals, not corrected for multiple comparisons.")


def test_no_interval_needs_no_note(tmp_path: Path) -> None:
    write_pair(tmp_path, [[1], [2]], [[1], [2]])
    assert list(chapter_of(tmp_path).notes) == []


def test_runs_of_different_versions_are_noted(tmp_path: Path) -> None:
    old, new = {"torch": "2.9.0", "numpy": "2.4", "wandb": None}, {"torch": "2.13.0", "numpy": "2.4"}
    write_run(tmp_path / "a", [1.0], seed=1, versions=old)
    write_run(tmp_path / "b", [1.0], seed=2, versions=new)
    write_run(tmp_path / "c", [1.0], seed=3, versions=new)
    chapter = chapter_of(tmp_path)
    assert list(chapter.notes) == ['Runs of 2 different sets of versions are pooled; see "Settings and versions".']
    assert "2 runs: torch 2.13.0, numpy 2.4" in chapter.folds[-1].texts


def test_one_rate_each_has_no_fold_on_learning_rates_and_several_have_one(tmp_path: Path) -> None:
    write_pair(tmp_path, [[1]], [[2]])
    chapter = chapter_of(tmp_path)
    assert "each method was run at one rate, so nothing was chosen" in chapter.intro[0]
    assert "Learning rates" not in [fold.title for fold in chapter.folds]
    write_arm(tmp_path, [[3.0]], rate=3e-4)
    chapter = chapter_of(tmp_path)
    assert "nothing was chosen" not in chapter.intro[0]
    assert chapter.notes[0].startswith("The learning rates were chosen on these same runs, so scores")
    (rates,) = [fold for fold in chapter.folds if fold.title == "Learning rates"]
    assert rates.texts[0] == "Chosen rates: normal at 0.0003 and weight norm at 0.0001."
    assert "normal at 0.0001: 0.00; normal at 0.0003: 1.00; weight norm at 0.0001: 0.50." in rates.texts[2]


def write_everything(root: Path) -> Path:
    """A report with every section, four methods and a folder name that does not end."""
    methods = ("normal", "weight_norm", "batch_norm", "weight_norm_mean_only_bn")
    for method, game, rate in product(methods, ("breakout", "space_invaders"), (1e-4, 3e-4)):
        curves = [[len(method), len(method) + rate * seed * 1e4] for seed in range(3)]
        write_arm(root / "runs", curves, game=game, parameterization=method, rate=rate, norms=[1, 2])
    endless = root / "runs" / ("a-name-that-does-not-end" * 8)
    write_run(endless, [1.0], steps=500, status="failed", message="x" * 200)
    return write_report([root / "runs"], root / "report")


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
    const shown = e => e.checkVisibility() && !e.closest("svg") && !e.closest(".wide");
    const wide = () => [...inner.querySelectorAll("body *")].filter(e => shown(e)
      && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.outerHTML.slice(0, 80));
    const figure = inner.querySelector("figure svg"), folded = wide();
    const found = {
      width: root.scrollWidth, folded, height: root.scrollHeight, bottom: figure.getBoundingClientRect().bottom,
      figureWidth: figure.getBoundingClientRect().width,
      background: getComputedStyle(inner.body).backgroundColor,
      figureText: getComputedStyle(figure.querySelector("text")).fill,
      bodyText: getComputedStyle(inner.body).color,
      headings: [...inner.querySelectorAll("h2")].map(e => e.textContent),
    };
    inner.querySelectorAll("details").forEach(e => e.open = true);
    document.body.innerHTML = "<pre>" + JSON.stringify({...found, unfolded: wide()}) + "</pre>";
  };"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_the_page_in_a_browser(page: str, width: int, dark: bool, tmp_path: Path) -> None:
    measured = browse(frame(width, f'srcdoc="{html.escape(page)}"'), MEASURE, tmp_path, dark=dark)
    assert measured["width"] == width
    assert measured["folded"] == measured["unfolded"] == []
    assert measured["headings"] == ["minatar, 200 steps"]
    assert measured["background"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert measured["figureText"] == measured["bodyText"] == ("rgb(227, 231, 235)" if dark else "rgb(31, 36, 41)")
    assert measured["figureWidth"] > 500  # two panels, which a phone scrolls in their own box
    assert measured["bottom"] < 900


@needs_chromium
def test_two_runs_fit_a_screen(tmp_path: Path) -> None:
    write_pair(tmp_path / "runs", [[1.0, 2.0]], [[1.0, 2.0]])
    page = write_report([tmp_path / "runs"], tmp_path / "out").read_text()
    measured = browse(frame(1300, f'srcdoc="{html.escape(page)}"'), MEASURE, tmp_path, dark=False)
    assert measured["height"] <= 900
    assert "Over games" not in page
    assert page.count("1 seed: no interval") == 2  # by each score
