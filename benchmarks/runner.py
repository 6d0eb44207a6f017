"""W8: a trivial parameterised notebook, by our runner and by papermill; the same notebook, the same parameter, both write the executed notebook.

    python benchmarks/runner.py [notebooks, default 20]

Ours is a process of its own for each notebook with the proof of reads, the bounds on memory and time, and a save after every cell. "Batch" is the time a
notebook in a batch of that many, one at a time, with the start of the nursery in it; "one, cold" starts an interpreter for a single notebook. papermill starts
a kernel for each; its own import is not counted, ours is. The second notebook imports the engine first. Ratios are what can be compared between machines.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

from quantbench.ops.runner import Limits, prepare, run, run_all

NOTEBOOKS = {"trivial": "", "imports the engine": "from quantbench.engine.study import Study\n"}


def notebook(path: Path, first: str) -> Path:
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    )
    sources = ("x: int = 1  # 0 to 1_000_000", f"{first}y = x + 1", "print(y)")
    book.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    return path


def said(path: Path) -> str:
    return "".join(nbformat.read(path, 4).cells[-1].outputs[0]["text"]).strip()


@contextmanager
def quiet() -> Iterator[None]:
    """Without what papermill's kernels write past Python."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def papermill(source: Path, folder: Path, count: int) -> None:
    import papermill

    for n in range(count):
        with quiet():
            papermill.execute_notebook(
                source, folder / f"p{n}.ipynb", {"x": n}, progress_bar=False, log_output=False
            )
        assert said(folder / f"p{n}.ipynb") == str(n + 1)


def batch(source: Path, folder: Path, count: int) -> None:
    jobs = [prepare(source, folder / f"o{n}.ipynb", {"x": n}) for n in range(count)]
    done = list(run_all(jobs, workers=1, limits=Limits()))
    assert all(one.outcome == "done" for one in done), [one.said for one in done]
    assert {said(job.output) for job in jobs} == {str(n + 1) for n in range(count)}


def cold(source: Path, folder: Path, count: int) -> None:
    for n in range(count):
        assert run(source, folder / "c.ipynb", {"x": n}).outcome == "done"


def seconds(work: Callable[[Path, Path, int], None], source: Path, folder: Path, count: int) -> float:
    start = time.perf_counter()
    work(source, folder, count)
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, nargs="?", default=20)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    ways = {"papermill": (papermill, 4), "ours, batch": (batch, words.count), "ours, one, cold": (cold, 4)}
    print(
        f"W8, medians of {words.rounds} rounds in turn, seconds a notebook\n\n{'':24}{'':18}{'s':>8}{'x papermill':>14}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, first in NOTEBOOKS.items():
            source = notebook(folder / "source.ipynb", first)
            found: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(1 + words.rounds):
                for way, (work, count) in ways.items():
                    found[way].append(seconds(work, source, folder, count))
            medians = {way: statistics.median(times[1:]) for way, times in found.items()}
            for way, took in medians.items():
                print(f"{title:24}{way:18}{took:8.3f}{medians['papermill'] / took:14.1f}")


if __name__ == "__main__":
    main()
