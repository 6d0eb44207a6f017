"""Strategies are found in real packages on a real path: a project of one's own and an installed plugin."""

from __future__ import annotations

import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest

from quantbench.core.check import QuantbenchError
from quantbench.engine.registry import find, found
from quantbench.engine.strategy import Strategy

SOURCE = """
from quantbench.engine.strategy import Strategy

class {name}(Strategy):
    "{about}"
    days: int = 5
"""


class House:
    """A project, and site-packages with plugins, both on the path."""

    def __init__(self, folder: Path) -> None:
        self.project, self.site = folder / "project", folder / "site"
        self.project.mkdir()
        self.site.mkdir()
        self.state('[project]\nname = "loft-ideas"\n[tool.nbdev]\n')
        self.write(self.project / "loft_ideas" / "__init__.py", "")

    def state(self, text: str) -> None:
        (self.project / "pyproject.toml").write_text(text)

    def write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        invalidate_caches()

    def own(self, module: str, name: str, about: str = "About.") -> None:
        self.write(self.project / "loft_ideas" / f"{module}.py", SOURCE.format(name=name, about=about))

    def plugin(self, package: str, entries: str, **modules: str) -> None:
        for module, text in ({"__init__": ""} | modules).items():
            self.write(self.site / package / f"{module}.py", text)
        info = self.site / f"{package}-1.0.dist-info"
        self.write(info / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        self.write(info / "entry_points.txt", f"[quantbench.strategies]\n{entries}\n")

    def find(self, name: str) -> type[Strategy]:
        return find(name, self.project)

    def names(self) -> dict[str, str]:
        return {row.name: row.error for row in found(self.project).rows}


@pytest.fixture
def house(tmp_path, monkeypatch):
    made = House(tmp_path)
    monkeypatch.syspath_prepend(str(made.project))
    monkeypatch.syspath_prepend(str(made.site))
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("loft_ideas", "loft_plugin", "loft_other"):
            del sys.modules[name]


def refused(code: str, house: House, name: str) -> QuantbenchError:
    with pytest.raises(QuantbenchError) as caught:
        house.find(name)
    assert caught.value.code == code
    return caught.value


def test_a_strategy_of_the_project_around_a_folder(house):
    house.own("calm", "Calm", "Buys nothing.")
    deep = house.project / "nbs" / "ideas"
    deep.mkdir(parents=True)
    assert issubclass(find("Calm", deep), Strategy) and find("Calm", str(deep))(days=9).days == 9
    (row,) = [row for row in found(deep).rows if row.module.startswith("loft")]
    assert (row.name, row.module, row.where) == ("Calm", "loft_ideas.calm", "loft_ideas/calm.py:4")
    assert row.summary == "Buys nothing." and row.parameters == {"days": 5} and not row.error


def test_the_working_directory_is_where_the_search_starts(house, monkeypatch):
    house.own("calm", "Calm")
    monkeypatch.chdir(house.project)
    assert find("Calm").__module__ == "loft_ideas.calm"


def test_only_the_module_with_the_name_is_imported(house):
    house.own("calm", "Calm")
    house.own("loud", "Loud")
    house.find("Calm")
    assert "loft_ideas.calm" in sys.modules and "loft_ideas.loud" not in sys.modules


def test_a_package_that_is_named_instead(house):
    house.own("calm", "Calm")
    house.write(house.site / "loft_other" / "__init__.py", SOURCE.format(name="Elsewhere", about="x"))
    house.state('[tool.quantbench]\nstrategies = ["loft_other"]\n[tool.nbdev]\nlib_name = "loft_ideas"\n')
    assert house.find("Elsewhere").__module__ == "loft_other"
    refused("QB-ENG-164", house, "Calm")


@pytest.mark.parametrize(
    "text", ["[tool.quantbench]\nstrategies = 'one'\n", "[tool.quantbench]\nstrategies = [1]\n", "[tool"]
)
def test_a_statement_that_cannot_be_read(house, text):
    house.state(text)
    refused("QB-ENG-167", house, "Calm")


def test_a_plugin_that_names_a_class_and_one_that_names_a_module(house):
    source = SOURCE.format(name="Borrowed", about="From elsewhere.")
    house.plugin("loft_plugin", "Short = loft_plugin.one:Borrowed\nrest = loft_plugin.two", one=source, two=SOURCE.format(name="Second", about="x"))  # fmt: skip
    assert house.find("Short").__name__ == "Borrowed" and house.find("Second").__module__ == "loft_plugin.two"
    rows = {row.name: row for row in found(house.project).rows}
    assert rows["Short"].where == "plugin loft_plugin" and rows["Short"].summary == "From elsewhere."


def test_the_same_name_in_two_places_names_both(house):
    house.own("calm", "Calm")
    house.plugin("loft_plugin", "Calm = loft_plugin.one:Calm", one=SOURCE.format(name="Calm", about="x"))
    told = str(refused("QB-ENG-165", house, "Calm"))
    assert "loft_ideas/calm.py:4" in told and "plugin loft_plugin" in told


def test_the_same_class_by_two_ways_is_one(house):
    house.own("calm", "Calm")
    house.plugin("loft_plugin", "Calm = loft_ideas.calm:Calm")
    assert house.find("Calm").__module__ == "loft_ideas.calm"


def test_a_misspelt_name_has_a_neighbour(house):
    house.own("calm", "MovingAverageCross")
    assert "MovingAverageCross" in str(refused("QB-ENG-164", house, "MovingAverageCros"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import nothing_of_that_name\nclass Bad: pass", "ModuleNotFoundError"),
        ("class Bad(:", "SyntaxError"),
        ("raise SystemExit(3)\nclass Bad: pass", "SystemExit"),
        ("class Bad: pass\n1 / 0", "ZeroDivisionError"),
    ],
)
def test_what_is_broken_is_listed_and_harms_nothing(house, text, error):
    house.own("calm", "Calm")
    house.plugin("loft_plugin", "Bad = loft_plugin.one:Bad", one=text)
    assert house.find("Calm") and error in house.names()["Bad"] and house.names()["Calm"] == ""
    assert error in str(refused("QB-ENG-166", house, "Bad"))


@pytest.mark.parametrize(
    "entry", ["Gone = loft_plugin.one:Gone", "Gone = loft_absent:Gone", "Gone = loft_absent"]
)
def test_a_plugin_that_points_nowhere(house, entry):
    house.own("calm", "Calm")
    house.plugin("loft_plugin", entry, one="")
    assert house.find("Calm") and sum(bool(error) for error in house.names().values()) == 1


def test_a_package_that_is_not_on_the_path_is_listed_as_such(house):
    house.state('[project]\nname = "loft-absent"\n[tool.nbdev]\n')
    assert "install" in house.names()["loft_absent"]


def test_what_is_no_strategy_is_not_found(house):
    house.write(house.project / "loft_ideas" / "mixed.py", SOURCE.format(name="Calm", about="x") + "class Helper: pass\nclass _Hidden(Strategy): pass\n")  # fmt: skip
    assert set(house.names()) & {"Calm", "Helper", "_Hidden", "Strategy"} == {"Calm"}
    refused("QB-ENG-164", house, "Helper")


def test_nothing_registers_itself(house):
    class Local(Strategy):
        days: int = 1

    refused("QB-ENG-164", house, Local.__name__)
