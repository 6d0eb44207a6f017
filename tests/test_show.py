"""Cards and plots: hostile text stays text, pictures keep their bytes."""

import math
import os
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.plot import DARK, LIGHT, bars, figure, heatmap, histogram, line, thin
from quantbench.core.show import Card, Row, Table, readable, table

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "\x1b[2J",
    "‮",
    "$\\frac{$",
    "</title></text><script>",
    '" onload="x',
    "]]>",
    "&lt;",
]
anything = st.text(max_size=30) | st.sampled_from(HOSTILE)


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@settings(derandomize=True, max_examples=150)
@given(text=anything)
def test_no_text_becomes_an_element(text: str) -> None:
    rows = table([{text: text, "other": [text]}], caption=text)
    card = Card(text, text, "warn", (Row(text, text, text, text),), (rows,))
    page = Page(card.html())
    assert page.tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert page.attributes <= {"style", "cellpadding"}
    assert all(c.isprintable() or c == "\n" for c in repr(card))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_a_part_of_a_picture(text: str) -> None:

    for plot in (
        line({text: [1.0, 2.0]}, title=text, unit=text),
        bars({text: 1.0}, title=text),
        histogram([1.0, 2.0], title=text, unit=text, marks={text: 1.5}),
        heatmap([[1.0]], [text], [text], title=text),
    ):
        svg = plot.svg()
        elements = list(ElementTree.fromstring(svg).iter())
        assert {e.tag.split("}")[1] for e in elements}.isdisjoint({"script", "img", "foreignObject", "a"})
        assert not any(name.startswith("on") for e in elements for name in e.attrib)
        assert Page(plot.html(adaptive=True)).tags == {"picture", "source", "img"}
        assert Page(plot.html()).attributes == {"alt", "width", "height", "src"}


DRAW = """
import hashlib, numpy as np
from quantbench.core.plot import bars, heatmap, histogram, line
noise = np.random.default_rng(1).normal(size=3000)
days = np.datetime64("2020-01-01T00:00:00", "us") + np.arange(3000) * np.timedelta64(3600, "s")
whole = hashlib.sha256()
for plot in (line({"a": noise, "b": noise.cumsum()}, days, title="t", unit="u"), bars({"a": 1.0, "b": -2.0}, title="t"),
             histogram(noise, title="t", marks={"m": 0.5}), heatmap(noise[:64].reshape(8, 8), list("abcdefgh"), list("abcdefgh"), title="t", signed=True),
             heatmap(noise.reshape(30, 100), range(30), range(100), title="t")):
    for dark in (False, True):
        whole.update(plot.svg(dark=dark).encode() + plot.png(dark=dark))
print(whole.hexdigest())
"""


def test_pictures_keep_their_bytes_between_processes(tmp_path) -> None:
    seen = set()
    (tmp_path / "matplotlibrc").write_text(
        "lines.marker: o\nxtick.labelsize: 30\naxes.facecolor: pink\nsvg.hashsalt: other\n"
    )
    for seed, rc, zone in (("0", "", "UTC"), ("4242", str(tmp_path / "matplotlibrc"), "Asia/Tokyo")):
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "SOURCE_DATE_EPOCH": seed}
        env |= {"MATPLOTLIBRC": rc} if rc else {}
        done = subprocess.run(
            [sys.executable, "-c", DRAW], env=env, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""  # no missing font, no warning
        seen.add(done.stdout)
    assert len(seen) == 1


def test_importing_show_and_plot_loads_no_heavy_library() -> None:
    code = "import sys, quantbench.core.show, quantbench.core.plot; print({'matplotlib', 'numpy', 'pandas', 'PIL'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )


def test_two_drawings_in_one_page_do_not_share_ids_of_different_things() -> None:
    first, second = (
        line({"a": [1.0, 5.0]}, title="one").svg(),
        line({"a": [3.0, 1.0]}, title="two", height=400).svg(),
    )
    bodies: dict[str, str] = {}
    for svg in (first, second):
        for element in ElementTree.fromstring(svg).iter():
            if "id" in element.attrib:
                body = ElementTree.tostring(element, encoding="unicode")
                assert bodies.setdefault(element.attrib["id"], body) == body


@settings(derandomize=True, max_examples=200)
@given(st.floats(-1e300, 1e300))
def test_a_float_is_shown_to_four_digits(value: float) -> None:
    shown = float(readable(value).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=5.01e-4) or abs(shown - value) <= 5e-324
    assert len(readable(value)) <= 19


@settings(derandomize=True, max_examples=200)
@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_shown_exactly(value: Decimal) -> None:
    assert Decimal(readable(value).replace(",", "")) == value


def test_every_holder_of_rows_shows_the_same_table() -> None:
    rows = [{"symbol": f"S{i}", "close": i / 7, "volume": i * 1000} for i in range(50)]
    shown: list[Table] = [
        table(holder) for holder in (rows, pa.Table.from_pylist(rows), pl.DataFrame(rows), pd.DataFrame(rows))
    ]
    assert all(each == shown[0] for each in shown) and shown[0].right == (False, True, True)
    assert [row[0] for row in shown[0].rows][-6:] == ["…", "S45", "S46", "S47", "S48", "S49"]


def test_what_is_missing_in_pandas_is_shown_as_missing() -> None:
    frame = pd.DataFrame(
        {"a": pd.array([1, None], dtype="Int64"), "t": pd.to_datetime(["2024-01-01", None], utc=True)}
    )
    assert table(frame).rows == (("1", "2024-01-01 00:00:00Z"), ("–", "–"))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5000), st.booleans())
def test_thinning_loses_no_extreme_and_no_gap(seed: int, count: int, gaps: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(0, 1e6, count)), rng.normal(size=count)
    if gaps:
        y[rng.integers(0, count, count // 10)] = np.nan
    few_x, few_y = thin(x, y, columns=100)
    assert len(few_y) <= max(200, 101 * 4 + 2) and few_x[0] == x[0] and few_x[-1] == x[-1]
    assert set(zip(few_x, np.nan_to_num(few_y, nan=9e9), strict=True)) <= set(
        zip(x, np.nan_to_num(y, nan=9e9), strict=True)
    )
    stretch = lambda at: ((at - x[0]) / (x[-1] - x[0]) * 100).astype(int)  # noqa: E731
    for pick in (np.fmax, np.fmin):
        whole, thinned = np.full(101, np.nan), np.full(101, np.nan)
        pick.at(whole, stretch(x), y)
        pick.at(thinned, stretch(few_x), few_y)
        assert np.array_equal(whole, thinned, equal_nan=True)


def test_a_gap_stays_a_gap() -> None:
    y = np.ones(5000)
    y[1000:2000] = np.nan
    few_x, few_y = thin(np.arange(5000), y, columns=100)
    missing = few_x[np.isnan(few_y)]
    assert missing.min() == 1000 and missing.max() == 1999


def test_unsorted_x_is_drawn_as_given() -> None:
    x = np.r_[np.arange(3000), 0]
    assert len(thin(x, x * 1.0)[0]) == 3001


def test_drawings_of_nothing_do_not_fail() -> None:
    for plot in (
        line({}, title="none"),
        line({"a": []}, title="empty"),
        line({"a": [math.nan, math.nan]}, title="nan"),
        bars({}, title="none"),
        bars({"a": math.nan, "b": 0.0}, title="nan"),
        histogram([], title="none"),
        histogram([math.nan, math.inf], title="nan"),
        histogram([1.0] * 50, title="constant"),
        heatmap(np.full((2, 2), np.nan), ["a", "b"], ["a", "b"], title="nan"),
        heatmap(np.zeros((2, 2)), ["a", "b"], ["a", "b"], title="zero", signed=True),
    ):
        assert plot.png().startswith(b"\x89PNG") and plot.svg().startswith("<svg")


def test_a_drawing_sees_the_theme_it_is_drawn_in() -> None:
    seen = []
    plot = figure(lambda _, theme: seen.append(theme), title="t")
    plot.svg(), plot.svg(dark=True), plot.png(dark=True)
    assert seen == [LIGHT, DARK, DARK]


def machado(colour: str, matrix: list[list[float]]) -> np.ndarray:
    "CIE L*a*b* of a colour as a dichromat sees it (Machado, Oliveira and Fernandes 2009)."
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ linear
        / (0.9505, 1, 1.089)
    )
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ],
    ids=["all cones", "deuteranopia", "protanopia"],
)
def test_series_can_be_told_apart(theme, matrix) -> None:
    seen = [machado(colour, matrix) for colour in theme.series]
    nearest = min(float(np.linalg.norm(a - b)) for i, a in enumerate(seen) for b in seen[:i])
    assert nearest > 15  # 2.3 is just noticeable side by side
