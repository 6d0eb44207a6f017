"""Settings: no misprint passes, no override loosens, the hash sees values and nothing else."""

import dataclasses
import random
import string
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.core.check import QuantbenchError
from quantbench.core.config import Settings, as_ini, load
from quantbench.core.settings import Section, fields, parse

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {
    f.name: getattr(Settings(), f.name)
    for f in dataclasses.fields(Settings)
    if isinstance(getattr(Settings(), f.name), Section)
}
DECLARED = {
    (name, key): each for name, section in SECTIONS.items() for key, each in fields(type(section)).items()
}
NUMBERS = {each: how for each, how in DECLARED.items() if how[1].low is not None}
LIMITS = {each: how for each, how in NUMBERS.items() if how[1].tighter}
examples = settings(derandomize=True, max_examples=120, deadline=None)


def variable(each: tuple[str, str]) -> str:
    return f"QUANTBENCH_{each[0]}_{each[1]}".upper()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("settings") / "settings.ini"


def written(file: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    file.write_text(text, encoding="utf-8")
    return load(file, environ or {})


def refusal(*arguments) -> QuantbenchError:
    with pytest.raises(QuantbenchError) as caught:
        written(*arguments)
    return caught.value


def value_of(loaded: Settings, each: tuple[str, str]):
    return getattr(getattr(loaded, each[0]), each[1])


def test_the_projects_file_is_the_documented_defaults() -> None:
    assert (ROOT / "settings.ini").read_text(encoding="utf-8") == as_ini(), "write as_ini() to settings.ini"
    loaded = load(ROOT / "settings.ini", {})
    assert loaded.canonical() == Settings().canonical() and loaded.hash == Settings().hash
    assert len(loaded.origins) == len(DECLARED)


def test_every_setting_is_documented_bounded_and_has_its_own_variable() -> None:
    assert len({variable(each) for each in DECLARED}) == len(DECLARED)
    for (section, key), (kind, spec) in DECLARED.items():
        default = getattr(SECTIONS[section], key)
        assert spec.meaning.endswith(".") and isinstance(default, kind)
        if spec.low is not None:
            assert spec.low <= default <= spec.high and (kind is Decimal) == key.endswith("_ccy")
    assert all(spec.tighter for (section, _), (_, spec) in DECLARED.items() if section == "guardian")


def test_found_from_a_directory_below_and_paths_count_from_the_file(tmp_path, monkeypatch) -> None:
    (tmp_path / "settings.ini").write_text("[paths]\nlake = data/lake\nreports = /srv/reports\n")
    below = tmp_path / "nbs" / "core"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    loaded = load(environ={})
    assert loaded.paths.lake == tmp_path.resolve() / "data" / "lake" and loaded.paths.reports == Path(
        "/srv/reports"
    )
    assert loaded.canonical()["paths.lake"] == "data/lake"


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("quantbench.core.config._find", lambda _: None)
    assert load(environ={}).hash == Settings().hash and load(environ={}).origins == {}


names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=30)


@examples
@given(
    section=st.sampled_from(sorted(SECTIONS)) | names,
    key=names | st.sampled_from(sorted({k for _, k in DECLARED})),
)
def test_any_unknown_name_is_refused(file, section: str, key: str) -> None:
    if (section, key) not in DECLARED:
        assert refusal(file, f"[{section}]\n{key} = 1\n").code in ("QB-CFG-003", "QB-CFG-007")


@examples
@given(each=st.sampled_from(sorted(DECLARED)), drop=st.integers(0, 40))
def test_a_misprint_names_what_was_meant(file, each: tuple[str, str], drop: int) -> None:
    section, key = each
    wrong = key[: drop % len(key)] + key[drop % len(key) + 1 :]
    if len(key) < 5 or (section, wrong) in DECLARED:
        return
    error = refusal(file, f"[{section}]\n\n{wrong} = 1\n")
    assert error.code == "QB-CFG-003" and "line 3" in error.where and "did you mean" in error.remedy
    error = refusal(file, "", {variable((section, wrong)): "hunter2"})
    assert error.code == "QB-CFG-003" and "did you mean" in error.remedy and "hunter2" not in str(error)


def text_of(kind: type, value) -> str:
    return str(int(value)) if kind is int else f"{value:f}" if kind is Decimal else repr(float(value))


@examples
@given(each=st.sampled_from(sorted(NUMBERS)), part=st.floats(0, 1))
def test_an_override_arrives_or_is_refused_as_looser(file, each: tuple[str, str], part: float) -> None:
    kind, spec = NUMBERS[each]
    span = Decimal(spec.high) - Decimal(spec.low)
    text = text_of(kind, Decimal(spec.low) + (span * Decimal(part)).quantize(Decimal("0.000001")))
    wanted, default = parse(text, kind, each[1], spec, "test"), getattr(SECTIONS[each[0]], each[1])
    if (wanted - default) * spec.tighter < 0:
        assert refusal(file, "", {variable(each): text}).code == "QB-CFG-009"
    else:
        loaded = written(file, "", {variable(each): text})
        assert value_of(loaded, each) == wanted and loaded.origins[".".join(each)] == variable(each)
        assert (loaded.hash == Settings().hash) == (wanted == default)


def test_an_override_is_measured_against_the_file_not_the_default(file) -> None:
    text = "[gates]\nmax_drawdown_fraction = 0.10\n"
    assert refusal(file, text, {"QUANTBENCH_GATES_MAX_DRAWDOWN_FRACTION": "0.15"}).code == "QB-CFG-009"
    text = "[broker]\nstage = live\n"
    assert written(file, text, {"QUANTBENCH_BROKER_STAGE": "paper"}).broker.stage == "paper"
    assert refusal(file, "", {"QUANTBENCH_BROKER_STAGE": "live"}).code == "QB-CFG-009"


def test_other_variables_are_not_ours(file) -> None:
    assert written(file, "", {"QUANTBENCH_SOAK": "1", "PATH": "/bin", "MYQUANTBENCH_X": "1"}).origins == {}
    assert refusal(file, "", {"quantbench_gates_rolling_days": "30"}).code == "QB-CFG-003"


@examples
@given(seed=st.integers(0, 2**32))
def test_the_hash_does_not_see_order_spacing_or_comments(file, seed: int) -> None:
    rng = random.Random(seed)
    blocks = as_ini().replace("\n\n#", "\n#").split("\n[")[1:]
    text = ""
    for block in rng.sample(blocks, len(blocks)):
        head, *lines = [line for line in block.split("\n") if line and not line.startswith("#")]
        text += f"\n  [{head.strip()}\n"
        for line in rng.sample(lines, len(lines)):
            key, value = line.split("=", 1)
            text += (
                rng.choice(["", "\n", "# note\n", "; [x] = y\n"])
                + f"{key.strip()}{' ' * rng.randrange(3)}={' ' * rng.randrange(3)}{value.strip()}\r\n"
            )
    assert written(file, rng.choice(["", "\ufeff"]) + text).hash == Settings().hash


@pytest.mark.parametrize("each", sorted(DECLARED), ids=".".join)
def test_any_change_of_a_value_changes_the_hash(each) -> None:
    kind, spec = DECLARED[each]
    section = SECTIONS[each[0]]
    before = getattr(section, each[1])
    if spec.low is not None:
        after = spec.high if before != spec.high else spec.low
    else:
        after = next((choice for choice in spec.choices if choice != before), None) or kind(
            {"currency": "EUR"}.get(each[1], "elsewhere.paper")
        )
    changed = dataclasses.replace(
        Settings(), **{each[0]: dataclasses.replace(section, **{each[1]: kind(after)})}
    )
    assert changed.hash != Settings().hash


def test_equal_numbers_written_differently_hash_alike(file) -> None:
    same = [
        written(file, f"[gates]\nmax_drawdown_fraction = {text}\n").hash
        for text in ("0.1", ".1", "0.10", "1e-1", "+0.1")
    ]
    same += [load(file, {"QUANTBENCH_GATES_MAX_DRAWDOWN_FRACTION": "0.1"}).hash]
    assert len(set(same)) == 1
    guardian = as_ini().split("[guardian]")[1].split("[broker]")[0].rsplit("#", 1)[0]
    money = [
        written(file, "[guardian]" + guardian.replace("= 10000\n", f"= {text}\n")).hash
        for text in ("10000", "10000.00")
    ]
    assert len(set(money)) == 1


@pytest.mark.parametrize("each", sorted(NUMBERS), ids=".".join)
def test_no_number_leaves_its_bounds(file, each) -> None:
    kind, spec = NUMBERS[each]
    step = 1 if kind is int else Decimal("0.0001")
    bad = [
        "nan",
        "inf",
        "-inf",
        "",
        "none",
        "null",
        "true",
        "1e999",
        "1_0",
        "١",
        "0x1",
        "1e18" if kind is not Decimal else "9" * 30,
    ]
    bad += [
        text_of(kind, Decimal(spec.low) - step),
        text_of(kind, Decimal(spec.high) + step),
        "1,5",
        "5 # five",
    ]
    for text in bad:
        error = refusal(file, "", {variable(each): text})
        assert error.code == (
            "QB-CFG-008" if "fraction" in each[1] and error.code == "QB-CFG-008" else "QB-CFG-004"
        )
        assert error.where == variable(each)


@pytest.mark.parametrize("missing", sorted(key for section, key in DECLARED if section == "guardian"))
def test_a_deleted_guardian_limit_is_noticed(file, missing: str) -> None:
    text = "\n".join(line for line in as_ini().split("\n") if not line.startswith(f"{missing} ="))
    error = refusal(file, text)
    assert error.code == "QB-CFG-004" and missing in error.where


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("rolling_days = 30\n", "QB-CFG-001", "line 1"),
        ("[gates]\nrolling_days: 30\n", "QB-CFG-001", "line 2"),
        ("[gates]\nrolling_days = 30\n  40\n", "QB-CFG-001", "line 3"),
        ("[gates]\nrolling_days = 30 ; month\n", "QB-CFG-001", "line 2"),
        ("[gates\n", "QB-CFG-001", "line 1"),
        ("[gates]\nrolling_days = 30\x00\n", "QB-CFG-001", "line 2"),
        ("[gates]\nrolling_days = 30\u2028min_windows_count = 9\n", "QB-CFG-001", "line 2"),
        ("[gates]\n\n[lake]\n\n[gates]\n", "QB-CFG-002", "lines 1 and 5"),
        ("[gates]\nrolling_days = 30\n\nrolling_days = 30\n", "QB-CFG-002", "lines 2 and 4"),
        ("[DEFAULT]\nrolling_days = 30\n", "QB-CFG-003", "line 1"),
        ("[gates]\nROLLING_DAYS = 30\n", "QB-CFG-003", "line 2"),
        ("[paths]\nlake =\n", "QB-CFG-004", "line 2"),
        ("[broker]\nname = Alpaca\n", "QB-CFG-004", "line 2"),
        ("[gates]\nmax_drawdown_fraction = 20\n", "QB-CFG-008", "line 2"),
        ("[gates]\nmax_drawdown_fraction = 20%\n", "QB-CFG-008", "line 2"),
    ],
)
def test_a_line_that_is_not_right_is_named(file, text: str, code: str, where: str) -> None:
    error = refusal(file, text)
    assert (error.code, where in error.where) == (code, True)


@pytest.mark.parametrize(
    "line",
    [
        "api_key = zzSECRETzz",
        "secret = zzSECRETzz",
        "broker_password = zzSECRETzz",
        "api_key: zzSECRETzz",
        "note = PKzzSECRETzz1234567",
        "name = AKIAzzSECRETzz123456",
        "endpoint = https://u:zzSECRETzz@paper.example",
        "scheduler = zzSECRETzz0123456789abcdef0123456789abcdef",
    ],
)
def test_a_secret_is_refused_and_never_repeated(file, line: str) -> None:
    section = "scale" if line.startswith("scheduler") else "broker"
    error = refusal(file, f"[{section}]\n{line}\n")
    assert error.code in ("QB-CFG-007", "QB-CFG-001", "QB-CFG-004") and "zzSECRETzz" not in str(error)


def test_files_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / "settings.ini").write_bytes("[lake]\ncurrency = €\n".encode("utf-16"))
    for path, code in ((tmp_path / "settings.ini", "QB-CFG-001"), (tmp_path / "other.ini", "QB-CFG-010")):
        with pytest.raises(QuantbenchError) as caught:
            load(path, {})
        assert caught.value.code == code


@examples
@given(st.text(max_size=200))
def test_no_text_brings_anything_but_settings_or_a_refusal(file, text: str) -> None:
    file.write_bytes(("[lake]\n" + text).encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load(file, {}), Settings)
    except QuantbenchError as error:
        assert error.code.startswith("QB-CFG-")


def test_the_card_says_where_each_value_came_from(file) -> None:
    loaded = written(file, "[gates]\nrolling_days = 45\n", {"QUANTBENCH_GUARDIAN_MAX_GROSS_RATIO": "0.5"})
    page, text = loaded._repr_html_(), repr(loaded)
    assert len(page) < 50_000 and str(file.parent) not in text + page
    assert "settings.ini:2" in text and "QUANTBENCH_GUARDIAN_MAX_GROSS_RATIO" in text


def test_as_ini_and_load_are_inverse(file) -> None:
    changed = dataclasses.replace(Settings(), gates=dataclasses.replace(Settings().gates, rolling_days=45))
    assert written(file, as_ini(changed)).hash == changed.hash != Settings().hash


@pytest.mark.parametrize(("section", "code"), [("guardian", "QB-CFG-004"), ("guardain", "QB-CFG-003")])
def test_a_section_without_a_line_is_not_overlooked(file, section: str, code: str) -> None:
    """Fails if deleting every limit leaves the defaults, or a misprinted empty section passes."""
    error = refusal(file, f"[lake]\n\n[{section}]\n")
    assert error.code == code and section in str(error)


KEY = "dGhpc2lzYXNlY3JldGtleTEyMzQ1Njc4OTA"


@pytest.mark.parametrize("text", [f"{KEY}=\n", f"{KEY}=1\n", f"{KEY}==\n", f"{KEY}=\n{KEY}=\n", f"[{KEY}]\n", f"[{KEY}]\nx = 1\n"])  # fmt: skip
def test_a_pasted_key_is_not_repeated_as_the_name_of_a_setting(file, text: str) -> None:
    """What base64 ends in looks like an assignment of nothing."""
    error = refusal(file, f"[broker]\n{text}")
    assert error.code in ("QB-CFG-007", "QB-CFG-002") and KEY not in str(error)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://api.alpaca.markets/paper",
        "https://api.alpaca.markets/?paper",
        "https://api.alpaca.markets#sandbox",
        "https://paper@api.alpaca.markets",
        "https://newspaper.example",
        "https://api.alpaca.markets\\.paper.example",
        "https://127.0.0.1.example",
    ],
)
def test_a_live_address_does_not_pass_for_paper_by_a_word_in_it(file, endpoint: str) -> None:
    assert refusal(file, f"[broker]\nendpoint = {endpoint}\n").code in ("QB-CFG-004", "QB-CFG-006")
    assert refusal(file, "", {"QUANTBENCH_BROKER_ENDPOINT": endpoint}).code in ("QB-CFG-004", "QB-CFG-006")


@pytest.mark.parametrize(
    "endpoint", ["https://paper-api.alpaca.markets/v2", "testnet.binance.vision", "127.0.0.1:7497", "http://localhost:80"]
)  # fmt: skip
def test_a_paper_address_passes(file, endpoint: str) -> None:
    assert written(file, f"[broker]\nendpoint = {endpoint}\n").broker.endpoint == endpoint


def test_a_folder_in_place_of_a_file_is_refused(tmp_path) -> None:
    with pytest.raises(QuantbenchError) as caught:
        load(tmp_path, {})
    assert caught.value.code == "QB-CFG-010"


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), Decimal("NaN"), Decimal("sNaN"), True, None, "1"], ids=lambda v: type(v).__name__)  # fmt: skip
def test_no_section_takes_what_is_not_a_number_within_bounds(value) -> None:
    for (section, key), (kind, _) in NUMBERS.items():
        with pytest.raises(QuantbenchError) as caught:
            type(SECTIONS[section])(**{key: value})
        assert caught.value.code == "QB-CFG-004", (section, key, kind)


@pytest.mark.parametrize("line", ["currency =", "currency = usd", "currency = USD;", "calendar ="])
def test_a_currency_and_a_calendar_are_stated(file, line: str) -> None:
    assert refusal(file, f"[lake]\n{line}\n").code == "QB-CFG-004"
