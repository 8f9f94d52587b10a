"""Stored results of the studies: what a notebook shows of a computation too dear to repeat."""

import json
import re
from pathlib import Path

import kdlab
from kdlab.cache import digest

NOT_TESTED = "NOT TESTED"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,120}")  # safe as a file name everywhere


class Stored(dict):
    """What a study has stored: cell name -> result, planned cells only, in plan order.

    False and "NOT TESTED" when nothing is stored.   records: the same cells with "cell",
    "result", "seconds", "versions".   missing: planned cells without a result.
    summary: what `summarise` made of exactly these cells, or None.
    """

    def __init__(self, study: str, records: dict[str, dict], missing: list[str],
                 summary: dict | None):
        super().__init__({name: record["result"] for name, record in records.items()})
        self.study, self.records, self.missing, self.summary = study, records, missing, summary

    @property
    def rows(self) -> list[dict]:
        """One flat dict a cell: "cell" and the plain values of its result."""
        plain = (bool, int, float, str)
        return [{"cell": name, **{k: v for k, v in self[name].items() if isinstance(v, plain)}}
                for name in self]

    @property
    def table(self) -> str:
        """The rows as Markdown; a missing cell reads NOT TESTED."""
        if not self:
            return f"{NOT_TESTED}: study {self.study} has no stored results; run `kdlab study " \
                   f"{self.study}`"
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for row in [*self.rows, *({"cell": name} for name in self.missing)]:
            lines.append("| " + " | ".join(_text(row.get(key, NOT_TESTED))
                                           for key in columns) + " |")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.table if not self else f"stored, not computed here\n\n{self.table}"

    _repr_markdown_ = __repr__


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def stored(name: str) -> Stored:
    """The results a study has stored in data/results/NAME; empty where there are none."""
    folder = results_folder(name)
    plan = read_object(folder / "plan.json") or {}
    records, missing = {}, []
    for cell, key in plan.items():
        record = read_object(folder / "cells" / f"{cell}.json")
        if record is not None and record["digest"] == key:
            records[cell] = record
        else:
            missing.append(cell)
    summary = read_object(folder / "summary.json")
    if summary is not None and summary.pop("plan", None) != digest(plan):
        summary = None  # made of other cells than those planned now
    return Stored(name, records, missing, summary)


def results_folder(name: str) -> Path:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a study")
    return kdlab.home() / "data" / "results" / name


def read_object(path: Path) -> dict | None:
    """A JSON object, or None where there is no file."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it and run the study again") \
            from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold an object; delete it and run the study again")
    return value
