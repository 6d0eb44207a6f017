"""Runs and evidence that the tests of reports share."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from functools import cache
from typing import Any

import numpy as np

from quantbench.engine.metrics import Frequency, Track
from quantbench.engine.result import Result
from quantbench.engine.study import Study
from quantbench.gates.verdict import Check, Verdict
from quantbench.ops.evidence import evidence

AS_OF = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@cache
def study() -> Study:
    return Study.of("KnownDrift", None, AS_OF)


@cache
def result() -> Result:
    return study().run()


def verdicts(inputs: dict[str, str], text: str = "") -> list[Verdict]:
    "Two gates: one that passed, one that failed; `text` stands wherever a gate can say something."
    rests = {**inputs, "settings": "5e77", "seed": "0"}
    checks = (
        Check(f"Sharpe ratio, window 1{text}", 1.31, "above", 1.0, f"a year{text}", 0.4, 2.2),
        Check("Sharpe ratio, window 2", float("nan"), "above", 1.0, "a year"),
    )
    kinds = {"spread": 10.0, "slippage": 5.0, "impact": 1.0}
    rows = [
        {
            "multiple": m,
            "cagr": 0.1 / m,
            "sharpe": 1.0 / m,
            "max_drawdown": 0.1 * m,
            "costs": kinds,
            "note": f"as run{text}",
        }
        for m in (1.0, 3.0, 4.0)
    ]
    figures = {
        "multiples": rows,
        "break_even": 7.5,
        "capacity": {"times": None, "why": f"unknown: no impact{text}", "way": []},
    }
    curve = {"time": ["2020-01-02", "2020-06-01", "2021-01-04"], "value": [2.0, 2.5, 2.2]}
    return [
        Verdict(f"walk_forward{text}", checks, f"It earned.{text}", f"Luck.{text}", rests, {f"windows{text}": rows, "curve": curve, "benchmark": curve}, (f"few windows{text}",)),
        Verdict("cost_stress", (Check("return at 3 times the costs", 0.03, "above", 0.0),), "Costs.", "Capacity.", rests, figures),
    ]  # fmt: skip


def luck(inputs: dict[str, str], text: str = "") -> Verdict:
    "What multiplicity finds; with text, in a shape that nobody expects."
    rests = {**inputs, "settings": "5e77", "seed": "0"}
    check = Check("deflated Sharpe ratio", 0.97, "at least", 0.95, "chance")
    figures: dict[str, Any] = {
        "sharpe": {"measured": 1.23, "luck": 0.81, "deflated": 0.9713, "probabilistic": 0.9991},
        "published": {"deflated": 0.9641},
        "track": {"years": 11.5, "above_zero": 3.25, "above_luck": 9.75, "chance": 0.95},
        "trials": {"count": 47, "run_again": 12, "correlation": 0.62, "independent": 18.5, "sharpes": [-0.2, 0.1, 0.4, 1.23]},
        "survives": {"further": [0, 10, 100], "deflated": [0.9713, 0.9, None]},
        "overfit": {"probability": 0.0625, "loss": 0.125, "splits": 16, "ranks": [0, 1, 3, 12]},
        "snooping": {"beside_nothing": {"spa": 0.021, "reality_check": 0.034}, "beside_holding": {"spa": 0.41}},
    }  # fmt: skip
    odd = dict.fromkeys(figures, text) | {"sharpe": [text], "track": {"years": text}}
    return Verdict("multiplicity", (check,), "No luck.", "Others.", rests, odd if text else figures)


def judged(text: str = "", strategy: str = "") -> dict[str, Any]:
    "Evidence for the study's result, as the gates write it."
    inputs = dict(study().inputs) | ({"strategy": strategy} if strategy else {})
    told = [{"parameter": f"seed{text}", "value": text or 7, "unit": text, "cells": [2, 5]}]
    proofs = {f"walk_forward{text}": told, "cost_stress": told}
    windows = [{"from": f"2019-01-02{text}", "to": "2019-12-31", "looks": 2}]
    trials = {
        "trials": 47,
        "versions": 3,
        "looks": 2,
        "contaminated": False,
        "counted": True,
        "windows": windows,
    }
    return evidence(
        inputs, "5e77", [*verdicts(inputs, text), luck(inputs, text)], missing=[f"holdout{text}"], proofs=proofs, trials=trials, packages={"numpy": f"2.4{text}"}, journal=f"3:1182:9f2c{text}"
    )  # fmt: skip


def renamed(text: str) -> Result:
    "The result of a strategy, with an asset, parameters and versions that are called like this."
    run = result()
    made = dataclasses.replace(
        run.provenance, strategy=text, parameters={text: text}, lanes={text: text}, limits=text, costs=text, execution=text, versions={text: text}, optimistic=True, same_close=True
    )  # fmt: skip
    return dataclasses.replace(run, provenance=made, logs=dataclasses.replace(run.logs, symbols=(text,)))


def days(count: int, start: str = "2004-01-02") -> np.ndarray:
    return np.busday_offset(start, np.arange(count + 1), roll="forward")


def track(count: int = 1260, seed: int = 1, rf: float = 0.0, drift: float = 0.0004) -> Track:
    when = days(count)
    return Track.of_returns(
        np.random.default_rng(seed).normal(drift, 0.01, count), when[1:], start=when[0], rf=rf
    )


def odd_tracks() -> dict[str, Track]:
    "Tracks in which something has no meaning, or a year is not 252 days."
    months = np.arange("2010-01", "2020-02", dtype="M8[M]").astype("M8[D]") - 1
    every = np.arange("2020-02-29", "2024-03-01", dtype="M8[D]")
    rng = np.random.default_rng(4)
    minutes = (
        np.arange("2024-01-02", "2024-01-20", dtype="M8[D]")[:, None]
        + np.arange(390) * np.timedelta64(1, "m")
        + np.timedelta64(870, "m")
    ).ravel()
    walk = {
        n: 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))) for n in (len(months), len(every), len(minutes))
    }
    return {
        "months": Track.of(walk[len(months)], months),
        "every day, from a leap day": Track.of(walk[len(every)], every, rf=-0.01),
        "minutes": Track.of(walk[len(minutes)], minutes, rf=0.03),
        "lost": Track.of([100.0, 50.0, -10.0, 40.0, 80.0], days(4), per_year=252),
        "still": Track.of(np.full(80, 100.0), days(79)),
        "rising": Track.of(100 * 1.001 ** np.arange(80), days(79)),
        "no clear period": dataclasses.replace(
            Track.of(walk[len(months)], months, per_year=1), frequency=Frequency("unclear", math.nan)
        ),
        "short": Track.of([1.0, 1.1, 1.0, 1.2], days(3), per_year=252),
    }
