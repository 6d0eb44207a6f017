"""The house stands as drawn: notebooks and modules mirror each other, imports point down, nothing is smuggled in."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from quantbench.core.check import messages
from quantbench.gates.verdict import MIME, Verdict
from quantbench.ops.gate import APART, GATES
from quantbench.ops.parameters import declared, injected, read_book

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
MODULES = sorted(p for p in (ROOT / "quantbench").rglob("*.py"))
NUMBERED = re.compile(r"(\d{2,3})_([a-z]+)\.ipynb")


def cells(notebook: Path) -> list[dict[str, object]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def source(cell: dict[str, object]) -> str:
    return "".join(cell["source"])


def exported_module(notebook: Path) -> str | None:
    found = [m[1] for c in cells(notebook) if (m := re.search(r"^#\| default_exp (\S+)", source(c), re.M))]
    return found[0] if found else None


EXPORTS = {name: n for n in NOTEBOOKS if (name := exported_module(n))}
NUMBERS = {
    name: int(NUMBERED.fullmatch(n.name)[1]) for name, n in EXPORTS.items() if NUMBERED.fullmatch(n.name)
}


LAYERS = {name.split(".")[0] for name in EXPORTS}


def imports(module: Path) -> set[str]:
    """The modules of ours that a module imports, as `package.module`, wherever in the file the import stands."""
    package = ("quantbench", *module.relative_to(ROOT / "quantbench").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            named = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join((*base, *name.split("."))) for name in named}
            whole = ".".join((*base, *(node.module or "").split(".")))
            if whole.removeprefix("quantbench.") in LAYERS:  # from ..core import check
                found |= {f"{whole}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("quantbench.") for name in found if name.startswith("quantbench.")}


def test_a_notebook_that_exports_is_numbered_and_named_like_its_module():
    for module, notebook in EXPORTS.items():
        folder, name = notebook.parent.name, NUMBERED.fullmatch(notebook.name)
        assert name, f"{notebook} exports {module} but is not named NN_noun.ipynb"
        assert module == f"{folder}.{name[2]}", notebook


def test_numbers_are_unique():
    assert len(set(NUMBERS.values())) == len(NUMBERS), sorted(NUMBERS.items(), key=lambda item: item[1])


def test_modules_import_only_lower_numbers():
    for module, number in NUMBERS.items():
        path = ROOT / "quantbench" / f"{module.replace('.', '/')}.py"
        for imported in imports(path):
            if imported in NUMBERS:
                assert NUMBERS[imported] < number, f"{module} ({number}) imports {imported}"
            else:
                assert imported in {m.split(".")[0] for m in NUMBERS}, f"{module} imports unknown {imported}"


def test_no_module_without_its_notebook():
    for module in MODULES:
        name = ".".join(module.relative_to(ROOT / "quantbench").with_suffix("").parts)
        if module.name not in ("__init__.py", "_modidx.py"):
            assert name in EXPORTS, f"{module} has no notebook: delete it or write one"


def test_exported_cells_have_no_star_import():
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            if "#| export" in source(cell):
                assert not re.search(r"^\s*from \S+ import \*", source(cell), re.M), (notebook, cell["id"])


def test_every_module_states_its_contract_in_its_docstring():
    """A directive that a formatter has commented out exports nothing, and nobody notices."""
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            assert not re.match(r"#+ +#\|", source(cell)), (notebook.name, cell["id"])
    for module, notebook in EXPORTS.items():
        if module.startswith("strategies."):  # theirs is that of every strategy
            continue
        text = (ROOT / "quantbench" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert "**Contract.**" in (ast.get_docstring(ast.parse(text)) or ""), notebook


def test_a_plot_that_is_shown_is_stored():
    """A picture that cannot be drawn leaves its text behind without failing the cell."""
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "".join(data.get("text/plain", "")).startswith("Plot: "):
                    assert "image/png" in data, (notebook.name, cell["id"])


def test_no_text_breaks_the_docstring_it_becomes():
    """nbdev puts title, summary and exported markdown between three double quotes, as they are."""
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            text = source(cell).rstrip()
            if cell["cell_type"] == "markdown" and (text.startswith("# ") or "#| export" in text):
                assert '"""' not in text, notebook
                assert not [
                    s for s in text.splitlines() if s.startswith(("# ", "> ")) and s.rstrip()[-1] in '"\\'
                ], notebook
                assert text[-1] not in '"\\', notebook


def test_no_conflict_markers():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    marker = re.compile(r"^\W{0,8}(<{7} |={7}$|>{7} )", re.M)
    for name in tracked.split():
        if name.endswith((".ipynb", ".py", ".md", ".toml", ".ini", ".yml")) and (ROOT / name).exists():
            assert not marker.search((ROOT / name).read_text(encoding="utf-8")), name


def test_cleaning_keeps_the_parameters_tag(tmp_path):
    """Without it papermill runs the defaults and reports success."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    cell = {
        "cell_type": "code",
        "execution_count": 3,
        "id": "abc12345",
        "metadata": {"tags": ["parameters"], "x": 1},
    }
    book = {
        "cells": [cell | {"outputs": [], "source": "n = 1"}],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    target = tmp_path / "book.ipynb"
    target.write_text(json.dumps(book))
    subprocess.run([BIN / "nbdev-clean", "--fname", target], cwd=tmp_path, check=True, capture_output=True)
    cleaned = json.loads(target.read_text())["cells"][0]
    assert cleaned["metadata"] == {"tags": ["parameters"]} and cleaned["execution_count"] is None


RUNBOOKS = [n for n in NOTEBOOKS if n.parent.name == "runbooks"]
JUDGES = [n for n in RUNBOOKS if n.stem not in APART]


def test_every_runbook_can_be_told_which_strategy_where_and_when():
    """One cell tagged parameters, that declares; nothing takes the place of a parameter; the defaults need no lake."""
    assert {n.stem for n in JUDGES} <= set(GATES)
    for notebook in RUNBOOKS:
        book = read_book(notebook)
        known = declared(book, notebook.name)
        injected(book, known, {name: one.default for name, one in known.items()})
        assert list(known)[:3] == ["strategy", "lake", "as_of"], notebook
        assert known["strategy"].default == "KnownDrift", notebook
        assert notebook not in JUDGES or known["seed"].high == 2**63 - 1, notebook


def test_every_runbook_asks_a_question_and_a_gate_ends_with_its_verdict():
    for notebook in RUNBOOKS:
        title, question = source(cells(notebook)[0]).split("\n\n", 1)
        assert title.startswith("# ") and question.startswith("> ") and question.rstrip().endswith("?"), (
            notebook
        )
    for notebook in JUDGES:
        *_, last = (cell for cell in cells(notebook) if cell["cell_type"] == "code")
        tree = ast.parse(source(last)).body
        assert len(tree) == 1 and isinstance(tree[0], ast.Expr) and isinstance(tree[0].value, ast.Name), (
            notebook
        )
        shown = [o["data"][MIME] for o in last["outputs"] if MIME in o.get("data", {})]
        assert [Verdict.of(record).gate for record in shown] == [notebook.stem], notebook


def test_runbooks_export_nothing_and_define_little():
    for notebook in RUNBOOKS:
        for cell in (cell for cell in cells(notebook) if cell["cell_type"] == "code"):
            assert "#|" not in source(cell), (notebook, cell["id"])
            tree = ast.walk(ast.parse(source(cell)))
            made = [n for n in tree if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            assert all(n.end_lineno - n.lineno < 5 for n in made), (notebook, cell["id"])


def test_the_index_names_every_module():
    index = (ROOT / "quantbench" / "_modidx.py").read_text(encoding="utf-8")
    named = set(re.findall(r"'quantbench\.([a-z]+\.[a-z]+)': ", index))
    assert named == set(EXPORTS)


def test_facades_are_small():
    for facade in (ROOT / "quantbench").rglob("__init__.py"):
        tree = ast.parse(facade.read_text(encoding="utf-8"))
        lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"]
        assert all(len(ast.literal_eval(names)) <= 15 for names in lists), facade


def test_every_code_in_the_table_is_raised_and_every_raised_code_is_in_the_table():
    raised = {c for m in MODULES for c in re.findall(r"QB-[A-Z]+-\d{3}", _code(m))}
    assert raised == set(messages()), sorted(raised ^ set(messages()))


def _code(module: Path) -> str:
    """The text of a module without its docstrings: a code that is only mentioned is not raised."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    strings = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    documented = {id(n.body[0].value) for n in ast.walk(tree) if _has_docstring(n)}
    return "\n".join(n.value for n in strings if id(n) not in documented)


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


def test_messages_are_complete():
    for code, wording in messages().items():
        assert set(wording) == {"what", "allowed", "remedy"} and all(wording.values()), code


WALL_TIME = re.compile(
    r"\b(datetime\.(now|utcnow|today)|date\.today|time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|sleep)|"
    r"pd\.Timestamp\.now|np\.random\.(seed|rand|randn|normal)|uuid4|random\.(random|seed|choice))\b"
)


TAKEN = {
    "time",
    "time_ns",
    "monotonic",
    "perf_counter",
    "sleep",
    "random",
    "seed",
    "choice",
    "rand",
    "randn",
    "normal",
}


def test_only_the_clock_reads_wall_time_and_nothing_draws_unseeded():
    for module in MODULES:
        if module.name != "clock.py":
            code = re.sub(r'"[^"\n]*"|#.*', "", module.read_text(encoding="utf-8"))
            assert not WALL_TIME.search(code), f"{module}: {WALL_TIME.search(code)[0]}"
            for source_module in ("time", "random", "numpy.random"):  # from time import time
                assert not names_imported(module, source_module.split(".")[-1]) & TAKEN, module


def names_imported(module: Path, source_module: str) -> set[str]:
    """What a module imports from another of ours by name."""
    nodes = [
        n for n in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)
    ]
    return {a.name for n in nodes if (n.module or "").split(".")[-1] == source_module for a in n.names}


def test_nothing_reads_around_as_of():
    """Every version of every fact comes out of `store.scan` and `layout.read_file`: only what guards or reports may import them."""
    guards = {"store.py", "asof.py", "seal.py", "ingest.py", "quality.py"}
    readers = {
        m.name
        for m in MODULES
        if names_imported(m, "store") & {"scan"} | names_imported(m, "layout") & {"read_file"}
    }
    assert {"asof.py", "seal.py"} <= readers <= guards, readers


HEAVY = (
    "pandas",
    "polars",
    "duckdb",
    "numba",
    "matplotlib",
    "scipy",
    "deltalake",
    "exchange_calendars",
    "pyarrow",
    "numpy",
)


def test_import_is_light():
    probe = "import sys, quantbench; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not set(HEAVY) & set(loaded)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {
    "arch": "arch-py",
    "duckdb": "python-duckdb",
    "matplotlib": "matplotlib-base",
    "tzdata": "python-tzdata",
    "build": "python-build",
    "playwright": "playwright-python",
}


def requirements() -> dict[str, str]:
    listed = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    parts = [re.fullmatch(r"([\w.-]+)([^;]*)(;.*)?", line) for line in listed]
    return {p[1]: p[2].strip() for p in parts}


def test_the_conda_environment_equals_the_project():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8").split("dependencies:")[1]
    listed = dict(re.findall(r"^  - (\S+) ([<>=]\S+)$", text, re.M))
    assert listed.pop("python") == PROJECT["requires-python"]
    assert listed == {CONDA_NAMES.get(name, name): bound for name, bound in requirements().items()}


def test_the_lock_covers_the_project_with_hashes():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.findall(r"^([\w.-]+)==[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)", text, re.M)
    assert {name.replace("_", "-") for name in requirements()} <= {name for name, _ in entries}
    assert len(entries) == len(re.findall(r"^[\w.-]+==", text, re.M))


@pytest.mark.parametrize(
    "name", ["requirements.lock", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"]
)
def test_no_index_is_named(name):
    assert not re.search(r"https?://|file://|find-links /", (ROOT / name).read_text(encoding="utf-8"))
