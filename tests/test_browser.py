"""The pages in a real browser: they show, count, print, follow the reader's settings, and run nothing but their own script.

`tools/browser.py` finds the browser, and installs it where it may; without one these tests fail.
"""

from __future__ import annotations

import json
import math
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from sheets import judged, odd_tracks, renamed, result, track

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from browser import REMEDY, browser
from quantbench.gates.verdict import Verdict
from quantbench.reports.page import embedded, read, unpacked
from quantbench.reports.site import Link, site
from quantbench.reports.tearsheet import tearsheet

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    place = browser()
    assert place is not None, REMEDY
    opened = playwright.chromium.launch(executable_path=place, headless=True, args=FLAGS)
    yield opened
    opened.close()


class Seen:
    "What a page did beside being shown."

    def __init__(self, page: Page) -> None:
        self.page, self.said, self.asked, self.dialogs = page, [], [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))


@contextmanager
def shown(chromium: Browser, folder: Path, text: str, **options: object) -> Iterator[Seen]:
    "A page in a fresh profile, from a file."
    place = folder / "page.html"
    place.write_bytes(text.encode("utf-8", "backslashreplace"))
    context = chromium.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
    try:
        seen = Seen(context.new_page())
        seen.page.goto(place.as_uri())
        yield seen
    finally:
        context.close()


@pytest.fixture(scope="module")
def sheet() -> str:
    return tearsheet(result(), judged(), benchmark="TIDE")


def data_of(text: str) -> tuple[list[str], dict[str, object]]:
    data = read(text, "tearsheet")
    return [str(d) for d in (unpacked(data["arrays"]["times"][1]).astype("M8[ms]").astype("M8[D]"))], {
        name: unpacked(packed, kind) for name, (kind, packed) in data["arrays"].items()
    }


def test_it_shows_without_an_error_or_a_request(chromium, tmp_path, sheet):
    with shown(chromium, tmp_path, sheet) as seen:
        page = seen.page
        assert page.title() == "KnownDrift: tearsheet" and page.locator("h1").inner_text() == "KnownDrift"
        assert page.get_attribute("#checked", "data-agreed") == "yes"
        assert page.locator(".check").count() == 17 + 6 and set(page.locator(".check").all_inner_texts()) == {
            "✓"
        }
        for name in ("growth", "water", "rolling", "exposure"):
            assert page.locator(f"#{name} .inner path.line").count() >= 1
            assert page.locator(f"#{name} .xs").bounding_box()["width"] > 600
        assert not seen.said and len(seen.asked) == 1 and seen.asked[0].startswith("file:")


@pytest.mark.parametrize("name", ["ordinary", "below zero rate", *odd_tracks()])
def test_the_page_computes_every_number_again(chromium, tmp_path, name):
    """Fails if a formula of the script and of the engine are not the same, also where a number has no meaning."""
    ours = {"ordinary": track(), "below zero rate": track(rf=-0.01), **odd_tracks()}[name]
    with shown(chromium, tmp_path, tearsheet(ours)) as seen:
        assert seen.page.get_attribute("#checked", "data-agreed") == "yes", seen.page.locator(
            "tr[data-number] .check"
        ).all_inner_texts()
        assert not seen.said


@pytest.mark.parametrize("name", ["Sharpe", "CAGR", "max drawdown", "Kelly", "CVaR 95 %"])
def test_a_number_that_was_changed_is_found(chromium, tmp_path, sheet, name):
    """Fails if the page says that all agree whatever it was told."""
    data = read(sheet, "tearsheet")
    data["numbers"][name] *= 1 + 1e-7
    changed = re.sub(
        r'(<script type="application/json" id="data">).*?(</script>)',
        lambda m: m[1] + embedded(data) + m[2],
        sheet,
        flags=re.DOTALL,
    )
    with shown(chromium, tmp_path, changed) as seen:
        assert seen.page.get_attribute(
            "#checked", "data-agreed"
        ) == "no" and "NOT ALL AGREE" in seen.page.inner_text("#checked")
        assert seen.page.inner_text(f'tr[data-number="{name}"] .check').startswith("✗")


def test_the_crosshair_reads_the_values_of_the_day(chromium, tmp_path, sheet):
    dates, arrays = data_of(sheet)
    with shown(chromium, tmp_path, sheet) as seen:
        page = seen.page
        page.hover("#growth .xs", position={"x": 300, "y": 100})
        said = page.inner_text("#growth .readout")
        k = dates.index(said.split()[0])
        values = [float(word.replace(",", "")) for word in re.findall(r"(?:strategy|TIDE) ([\d,]+)", said)]
        assert values == pytest.approx([arrays["equity"][k], arrays["benchmark"][k]], abs=0.51)
        box = page.locator("#growth .xs").bounding_box()
        times = arrays["times"]
        assert abs((times[k] - times[0]) / (times[-1] - times[0]) - 300 / box["width"]) < 0.005
        assert page.inner_text("#rolling .readout").split()[0] == dates[k]  # all charts point at the same day
        page.mouse.move(1, 1)
        assert page.inner_text("#growth .readout") == ""


def test_a_range_is_chosen_by_button_by_dragging_and_by_key(chromium, tmp_path, sheet):
    with shown(chromium, tmp_path, sheet) as seen:
        page = seen.page
        before = page.get_attribute("#growth .inner path.s1", "d")
        page.click("button[data-years='3']")
        assert (
            page.inner_text(".range").startswith("2022-01-07 to 2025-01-07: return ")
            and page.get_attribute("#growth .inner path.s1", "d") != before
        )
        assert page.get_attribute("button[data-years='3']", "aria-pressed") == "true"
        page.click("button[data-years='0']")
        page.locator("#water").scroll_into_view_if_needed()
        box = page.locator("#water .xs").bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 300, box["y"] + 40)
        page.mouse.up()
        assert re.match(r"20\d\d-\d\d-\d\d to 20\d\d-\d\d-\d\d: return ", page.inner_text(".range"))
        page.focus("#water .axes")
        page.keyboard.press("Escape")
        assert page.inner_text(".range") == "Drag across a chart to look closer."
        page.keyboard.press("End")
        assert page.inner_text("#water .readout").split()[0] == "2025-01-07"
        page.keyboard.press("Shift+ArrowLeft")
        first = page.inner_text("#water .readout")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#water .readout") != first != ""
        page.keyboard.press("+")
        assert "to" in page.inner_text(".range") and not seen.said


def test_the_range_says_what_the_engine_says_of_it(chromium, tmp_path):
    """Fails if the script's return and drawdown of a part are of something else."""
    ours = track(1260)
    with shown(chromium, tmp_path, tearsheet(ours)) as seen:
        seen.page.click("button[data-years='1']")
        said = seen.page.inner_text(".range")
        start = str(seen.page.inner_text(".range").split()[0])
        k = [str(t) for t in ours.times.astype("M8[ns]").astype("M8[D]")].index(start)
        whole, deepest = (
            ours.equity[-1] / ours.equity[k] - 1,
            min(ours.equity[k:] / [max(ours.equity[k : j + 1]) for j in range(k, len(ours.equity))] - 1),
        )
        assert (
            f"return {100 * whole:.2f} %".replace("-", "−") in said
            and f"max drawdown {100 * deepest:.2f} %".replace("-", "−") in said
        )


def test_a_logarithmic_scale_makes_equal_growth_equal(chromium, tmp_path, sheet):
    with shown(chromium, tmp_path, sheet) as seen:
        page, height = seen.page, 230
        page.check("text=log scale")
        path = page.get_attribute("#growth .inner path.line.s1", "d")
        depth = [float(pair.split(",")[1]) for pair in path.removeprefix("M").split(" ")]
        equity = data_of(sheet)[1]["equity"]
        slope = (depth[0] - depth[-1]) / math.log(equity[-1] / equity[0])
        assert min(depth) > 0 and max(depth) < height and slope > 0
        middle = [float(pair.split(",")[0]) for pair in path.removeprefix("M").split(" ")].index(
            min(
                (float(p.split(",")[0]) for p in path.removeprefix("M").split(" ")),
                key=lambda x: abs(x - 500),
            )
        )
        near = equity[len(equity) // 2 - 40 : len(equity) // 2 + 40]
        low, high = (depth[0] - slope * math.log(v / equity[0]) for v in (max(near), min(near)))
        assert low - 0.5 <= depth[middle] <= high + 0.5


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_follows_light_and_dark_and_may_be_told_otherwise(chromium, tmp_path, sheet, scheme, dark):
    def brightness(page: Page) -> float:
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    with shown(chromium, tmp_path, sheet, color_scheme=scheme) as seen:
        assert (brightness(seen.page) < 60) is dark
        seen.page.click("#theme")
        assert (brightness(seen.page) < 60) is not dark
        seen.page.emulate_media(media="print")
        assert brightness(seen.page) > 240  # paper is white
        assert not seen.said


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_scrolls_down_and_not_sideways(chromium, tmp_path, sheet, width):
    with shown(chromium, tmp_path, sheet, viewport={"width": width, "height": 844}) as seen:
        for summary in seen.page.locator("details").all():
            summary.evaluate("element => element.open = true")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        sizes = seen.page.evaluate(
            "[...document.querySelectorAll('.axes text')].map(e => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 10  # letters are not shrunk with the drawing


def test_the_keyboard_reaches_everything_that_acts(chromium, tmp_path, sheet):
    with shown(chromium, tmp_path, sheet) as seen:
        page = seen.page
        reached = []
        for _ in range(200):
            page.keyboard.press("Tab")
            found = page.evaluate(
                "(e => [e.tagName, (e.getAttribute('aria-label') || e.textContent || (e.labels && e.labels[0].textContent) || '').trim().slice(0, 40), e.className])(document.activeElement)"
            )
            if found[0] == "BODY":
                break
            reached.append(found)
        assert reached[0][1] == "Skip to the content" and all(name for _, name, _ in reached)
        assert (
            sum(tag == "BUTTON" for tag, _, _ in reached) >= 4
            and sum("axes" in c for _, _, c in reached) == 4
        )
        assert (
            "INPUT" in {tag for tag, _, _ in reached} and sum(tag == "SUMMARY" for tag, _, _ in reached) >= 5
        )


def test_a_screen_reader_finds_names_headings_and_tables(chromium, tmp_path, sheet):
    with shown(chromium, tmp_path, sheet) as seen:
        found = seen.page.evaluate(
            """() => ({
              language: document.documentElement.lang,
              unnamed: [...document.querySelectorAll('svg[role=img]')].filter(s => !s.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id)?.textContent)).length,
              loose: [...document.querySelectorAll('svg:not([role]):not([aria-hidden])')].filter(s => !s.parentElement.closest('svg')).length,
              headless: [...document.querySelectorAll('table')].filter(t => !t.querySelector('th[scope]')).length,
              levels: [...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1])),
              main: document.querySelectorAll('main').length, broken: [...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash)).length,
              tables: [...document.querySelectorAll('figure[data-keys]')].filter(f => !f.querySelector('details table')).length,
            })"""
        )
        levels = found.pop("levels")
        assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
        assert found == {
            "language": "en",
            "unnamed": 0,
            "loose": 0,
            "headless": 0,
            "main": 1,
            "broken": 0,
            "tables": 0,
        }


def test_it_prints(chromium, tmp_path, sheet):
    with shown(chromium, tmp_path, sheet, color_scheme="dark") as seen:
        paper = seen.page.pdf(prefer_css_page_size=True, print_background=True)
        seen.page.emulate_media(media="print")
        assert (
            not seen.page.is_visible("nav")
            and not seen.page.is_visible(".tools")
            and seen.page.is_visible("#growth")
        )
        seen.page.set_viewport_size({"width": 680, "height": 900})
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 680
    pages = len(re.findall(rb"/Type\s*/Page[^s]", paper))
    assert paper.startswith(b"%PDF") and 3 <= pages <= 12


def test_without_its_script_it_still_says_everything(chromium, tmp_path, sheet):
    with shown(chromium, tmp_path, sheet, java_script_enabled=False) as seen:
        page = seen.page
        assert page.locator(
            "#growth .inner path.line"
        ).count() == 2 and "Not computed again" in page.inner_text("#checked")
        assert (
            not page.is_visible(".tools")
            and page.inner_text('tr[data-number="Sharpe"] td:nth-of-type(1)')
            == f"{result().metrics['Sharpe']:.3f}"
        )


# ---- hostile text ------------------------------------------------------------------------------------------------

HIT = "window.hit=1;alert(1)"
PAYLOADS = [
    f"<script>{HIT}</script>", f"</script><script>{HIT}</script>", f"</title><script>{HIT}</script>", f"</style><script>{HIT}</script>", f"--><script>{HIT}</script>",
    f"<img src=x onerror={HIT}>", f'"><img src=x onerror="{HIT}">', f"'><img src=x onerror='{HIT}'>", f"<svg onload={HIT}>", f"</svg><svg onload={HIT}>", f"<svg><script>{HIT}</script></svg>",
    f"<body onload={HIT}>", f"<iframe src=javascript:{HIT}>", f'<iframe srcdoc="<script>parent.{HIT}</script>">', f'<a href="javascript:{HIT}">x</a>', f"javascript:{HIT}", f"JaVaScRiPt:{HIT}", f"data:text/html,<script>{HIT}</script>",
    f'" onmouseover="{HIT}', f"' onfocus='{HIT}' autofocus='", f'" autofocus onfocus="{HIT}" x="', f"x onclick={HIT}", f"<details open ontoggle={HIT}>", f"<video><source onerror={HIT}></video>", f"<audio src=x onerror={HIT}>",
    f"<object data=javascript:{HIT}>", f"<embed src=javascript:{HIT}>", f"<form action=javascript:{HIT}><button>x</button></form>", f'<meta http-equiv="refresh" content="0;url=javascript:{HIT}">', f"<base href=javascript:{HIT}//>",
    f"<link rel=stylesheet href=javascript:{HIT}>", f"<math><mtext><table><mglyph><style><img src=x onerror={HIT}></style></mglyph></table></mtext></math>", f"<noscript><p title='</noscript><img src=x onerror={HIT}>'>",
    f"<template><script>{HIT}</script></template>", f"<!--<img src='--><img src=x onerror={HIT}>'>", f"<![CDATA[<script>{HIT}</script>]]>", f"&lt;script&gt;{HIT}&lt;/script&gt;", f"\\u003cscript\\u003e{HIT}\\u003c/script\\u003e",
    f"${{{HIT}}}`'\"{{{{constructor.constructor('{HIT}')()}}}}", f"\u2028;{HIT};\u2029//\x00\x1b[2J\u202e<script>{HIT}</script>",
]  # fmt: skip
COUNT = "Object.fromEntries(Object.entries(Object.groupBy([...document.querySelectorAll('*')], e => e.tagName)).map(([k, v]) => [k, v.length]))"


@cache
def hostile(text: str) -> str:
    "A tearsheet in which everything that has a name has this one."
    run = renamed(text)
    record = judged(text, strategy=text)
    return tearsheet(run, record, benchmark=text, title=text)


def test_there_are_forty_payloads_and_they_bite(chromium, tmp_path):
    """Fails if the attacks are none: put into a page as they are, most must run."""
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 40
    bitten = 0
    for text in PAYLOADS[:14]:
        with shown(
            chromium,
            tmp_path,
            f'<!doctype html><meta charset=utf-8><p title="{text}">{text}</p><script>var a = "{text}"</script>',
        ) as seen:
            bitten += bool(seen.page.evaluate("window.hit") or seen.dialogs)
    assert bitten >= 8


@pytest.mark.parametrize("bypass", [False, True], ids=["policy", "no policy"])
def test_no_payload_runs(chromium, tmp_path, bypass):
    """Fails if any name reaches the page as markup; without the policy the escaping must hold alone."""
    with shown(chromium, tmp_path, hostile("name")) as seen:
        ours = seen.page.evaluate(COUNT)
    executed = []
    for text in PAYLOADS:
        with shown(chromium, tmp_path, hostile(text), bypass_csp=bypass) as seen:
            page = seen.page
            for part in page.locator("details").all():
                part.evaluate("element => element.open = true")
            page.hover("#growth .xs", position={"x": 200, "y": 60})
            page.focus("#growth .axes")
            page.keyboard.press("ArrowLeft")
            page.click("h1")
            hit = page.evaluate("[window.hit, window.parent.hit, document.title.includes('undefined')]")
            if (
                hit != [None, None, False]
                or seen.dialogs
                or len(seen.asked) != 1
                or seen.said
                or page.evaluate(COUNT) != ours
            ):
                executed.append((text, hit, seen.dialogs, seen.asked[1:], seen.said))
            assert page.get_attribute("#checked", "data-agreed") == "yes"
    assert not executed


def test_no_payload_runs_on_the_page_of_all(chromium, tmp_path):
    folder = tmp_path / "reports"
    for k, text in enumerate(PAYLOADS):
        (folder / str(k)).mkdir(parents=True)
        (folder / str(k) / "tearsheet.html").write_bytes(hostile(text).encode("utf-8", "backslashreplace"))
    text = site(folder, {PAYLOADS[0]: [Link(payload, payload, payload) for payload in PAYLOADS]})
    with shown(chromium, tmp_path, text, bypass_csp=True) as seen:
        assert (
            seen.page.locator("li").count() == 2 * len(PAYLOADS) and seen.page.evaluate("window.hit") is None
        )
        assert all(
            link.startswith(("./", "#main"))
            for link in seen.page.evaluate(
                "[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
            )
        )
        assert seen.page.evaluate("[...document.querySelectorAll('a')].every(a => a.protocol === 'file:')")
        assert not seen.dialogs and not seen.said and len(seen.asked) == 1


def test_the_policy_stops_what_is_put_into_the_file(chromium, tmp_path, sheet):
    """Fails if the policy of the page would let a script, a style, a frame or a request through."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        added = (
            f'<script>{HIT}</script><img src=x onerror="{HIT}"><iframe src="about:blank"></iframe><p id="styled" style="color:rgb(1,2,3)">x</p>'
            f'<img src="http://127.0.0.1:{port}/x.png"><link rel="stylesheet" href="http://127.0.0.1:{port}/x.css"><script src="http://127.0.0.1:{port}/x.js"></script>'
            f'<iframe src="http://127.0.0.1:{port}/"></iframe><object data="http://127.0.0.1:{port}/x.svg"></object><video src="http://127.0.0.1:{port}/x.mp4" preload="auto" autoplay></video>'
        )
        with shown(chromium, tmp_path, sheet.replace('<main id="main">', f'<main id="main">{added}')) as seen:
            page = seen.page
            assert page.evaluate("window.hit") is None and not seen.dialogs
            assert (
                page.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(1, 2, 3)"
            )
            with pytest.raises(Exception, match=r"[Tt]rusted"):
                page.evaluate("document.body.innerHTML = '<b>x</b>'")
            page.evaluate(f"fetch('http://127.0.0.1:{port}/x').catch(() => 0)")
            page.wait_for_load_state("networkidle")
            assert len(seen.said) >= 7  # each refusal is on the console
        listening.setblocking(False)
        with suppress(
            BlockingIOError
        ):  # a browser may open a connection before it reads the policy; it must not say a word
            while True:
                caller, _ = listening.accept()
                caller.settimeout(2)
                with caller, suppress(TimeoutError):
                    assert caller.recv(1000) == b""


def test_the_record_of_a_verdict_is_in_the_page_as_it_was(chromium, tmp_path):
    """Fails if escaping changes what a hostile text says: it must be readable, not gone."""
    text = f'<b>{HIT}</b> & "more"'
    with shown(chromium, tmp_path, hostile(text)) as seen:
        assert seen.page.locator("h1").inner_text() == text
        held = json.loads(
            seen.page.inner_text("#data") or seen.page.evaluate("document.getElementById('data').textContent")
        )
        assert (
            held["strategy"] == text
            and held["verdicts"][0]["gate"] == Verdict.of(judged(text, strategy=text)["verdicts"][0]).gate
        )
