"""The log of a run: one JSON object a line while it runs, columns to draw when it is read."""

import json
import math
import os
from pathlib import Path

import numpy as np

from kdlab.cache import write_atomic

FIXED = ("step", "epoch", "lr", "loss", "images_per_second", "data_wait", "gradient_norm")


class History:
    """What a run logged, oldest first.

    rows: one dict a logged step.   columns: name -> (rows,) array, NaN where a row lacks it:
    step        steps done, from 1 (int64)         epoch   from 1 (int64)
    lr          learning rate of the student       loss    the sum of all terms at that step
    images_per_second, data_wait (the share of the time spent waiting for batches, 0 to 1): since
                the row before
    gradient_norm   of the student, before clipping
    memory_mb   what the process holds, mapped files apart (CUDA: the most its tensors had)
    name/term   one column a loss term             name.key   diagnostics and schedules, not summed
    name.term_share   of the gradient, 0 to 1      validation   after an epoch
    """

    def __init__(self, rows: list[dict] | None = None):
        self.rows = [] if rows is None else rows

    @property
    def columns(self) -> dict[str, np.ndarray]:
        names = dict.fromkeys(FIXED if self.rows else ())
        for row in self.rows:
            names.update(dict.fromkeys(row))
        table = {n: np.array([r.get(n, math.nan) for r in self.rows], float) for n in names}
        for name in ("step", "epoch"):
            if name in table:
                table[name] = table[name].astype(np.int64)
        return table

    @property
    def terms(self) -> list[str]:
        """The names of the summed terms, 'name/term'."""
        return [name for name in self.columns if "/" in name]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return "History: nothing logged yet"
        first, last = self.rows[0], self.rows[-1]
        terms = ", ".join(f"{t} {first.get(t, math.nan):.4g} -> {last.get(t, math.nan):.4g}"
                          for t in self.terms)
        speed = np.median(self.columns["images_per_second"])
        return (f"History: {last['step']} steps, {last['epoch']} epochs, {speed:.0f} images/s, "
                f"loss {first['loss']:.4g} -> {last['loss']:.4g} ({terms})")

    def table(self) -> str:
        """One line an epoch, as text: the mean of the loss and of each term over its rows."""
        columns, terms = self.columns, self.terms
        heads = ["epoch", "lr", "loss", *terms, "images/s"]
        lines = [heads]
        for epoch in np.unique(columns.get("epoch", [])):
            here = columns["epoch"] == epoch
            means = [float(np.mean(columns[t][here])) for t in ("lr", "loss", *terms)]
            speed = float(np.median(columns["images_per_second"][here]))
            lines.append([f"{epoch}", *(f"{m:.4g}" for m in means), f"{speed:.0f}"])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True))
                         for line in lines)

    @classmethod
    def read(cls, path: str | Path) -> "History":
        """The log of a run, finished, stopped or still running.

        A last line without its end (the writer died or is at work) is left out. Raises
        FileNotFoundError, or ValueError that names the file and the line.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such log; a run writes log.jsonl into its out "
                                    "folder")
        rows = []
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    rows.append(_row(json.loads(line)))
                except ValueError as error:
                    if not line.endswith(b"\n"):
                        break
                    raise ValueError(f"{path} line {number}: not a line of a training log "
                                     f"({error}); delete the line to read the rest") from error
        return cls(rows)


def _row(row: object) -> dict:
    """A parsed line, null as NaN; ValueError if it is not what Log writes."""
    if not isinstance(row, dict):
        raise ValueError("expected an object")
    for name in ("step", "epoch", "loss"):
        if name not in row:
            raise ValueError(f"no {name!r}")
    for name, value in row.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"{name!r} is no number")
    if not all(type(row[name]) is int for name in ("step", "epoch")):
        raise ValueError("step and epoch are integers")
    return {name: math.nan if value is None else value for name, value in row.items()}


class Log:
    """Collects rows into `history` and, given a path, writes each as a line and flushes it.

    rows: of a run that goes on; a file already there is replaced by exactly these. Numbers that
    JSON cannot hold (NaN, infinity) are written as null.
    """

    def __init__(self, path: str | Path | None = None, rows: list[dict] | None = None):
        self.history = History(rows)
        self.file = None
        if path is not None:
            write_atomic(path, "".join(map(_line, self.history.rows)))
            self.file = open(path, "a", encoding="utf-8")

    def write(self, row: dict[str, float]) -> None:
        self.history.rows.append(row)
        if self.file:
            try:
                self.file.write(_line(row))
                self.file.flush()
            except OSError as error:
                raise OSError(
                    error.errno, f"{self.file.name} cannot be written ({error.strerror}); the "
                    "checkpoints are safe: mend that and start the run again") from error

    def sync(self) -> None:
        """On the disk, so that no checkpoint is ever ahead of its log."""
        if self.file:
            os.fsync(self.file.fileno())

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        if self.file:
            self.file.close()


def _line(row: dict[str, float]) -> str:
    plain = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(plain, allow_nan=False) + "\n"
