"""Files that somebody else is writing: the end of one, and what is new in a log."""

import json
import math
from array import array
from pathlib import Path

import numpy as np

BLOCK = 65_536  # bytes read at once from the end of a file; ours


def tail(path: str | Path, n: int) -> list[str]:
    """The last n lines of a text file, read from its end; [] where there is none."""
    if n < 1 or not Path(path).exists():
        return []
    with open(path, "rb") as file:
        start, data = file.seek(0, 2), b""
        while start and data.count(b"\n") <= n:
            size = min(BLOCK, start)
            start = file.seek(start - size)
            data = file.read(size) + data
    return data.decode(errors="replace").splitlines()[-n:]


def last_rows(path: str | Path, n: int) -> list[dict]:
    """The last n whole rows of a log, oldest first; [] where there are none."""
    rows = []
    for line in tail(path, n + 1):  # the last one may be half written
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows[-n:]


class Follow:
    """A run's log as columns, read on from where the last look ended.

    columns: name -> (rows,) float array, NaN where a row lacks it; as History.columns.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._anew()

    def _anew(self) -> None:
        self.place, self.file, self.rows = 0, None, 0
        self.values: dict[str, array] = {}

    def look(self) -> bool:
        """Read what is new; False where nothing is.

        A log that was replaced or cut (a run that goes on from a checkpoint drops the rows after
        it) is read from its beginning.
        """
        try:
            about = self.path.stat()
        except FileNotFoundError:
            changed = self.rows > 0
            self._anew()
            return changed
        changed = False
        if about.st_ino != self.file or about.st_size < self.place:
            changed = self.rows > 0
            self._anew()
            self.file = about.st_ino
        with open(self.path, "rb") as file:
            file.seek(self.place)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.place += len(line)
                changed |= self._add(line)
        return changed

    def _add(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
        except ValueError:
            return False
        if not isinstance(row, dict):
            return False
        for name in row:
            if name not in self.values:
                self.values[name] = array("d", [math.nan]) * self.rows
        for name, column in self.values.items():
            value = row.get(name)
            column.append(math.nan if not isinstance(value, int | float) else value)
        self.rows += 1
        return True

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return {name: np.array(values) for name, values in self.values.items()}
