"""What a run was predicted to take and what it took, as a small table."""

from collections.abc import Sequence
from typing import NamedTuple

ROWS = (  # what, of status.json, of predicted.json, that is one of these in the table's unit
    ("minutes", "seconds", "minutes", 60),
    ("memory (MB)", "peak_memory_mb", "memory_mb", 1),
    ("disk (MB)", "disk_bytes", "disk_bytes", 1e6),
)


class Report(NamedTuple):
    """rows: (what, predicted, actual), None where a number is not known."""

    title: str
    rows: Sequence[tuple[str, float | None, float | None]]

    def _cells(self) -> list[list[str]]:
        lines = [["", "predicted", "actual", "actual / predicted"]]
        for what, predicted, actual in self.rows:
            ratio = actual / predicted if predicted and actual is not None else None
            lines.append([what, _said(predicted), _said(actual), _said(ratio)])
        return lines

    def __repr__(self) -> str:
        lines = self._cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join([self.title, *("  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:],
                                                                    strict=True))])
            for line in lines)])

    def _repr_markdown_(self) -> str:
        head, *rows = ("| " + " | ".join(line) + " |" for line in self._cells())
        return "\n".join([f"**{self.title}**", "", head, "| --- | ---: | ---: | ---: |", *rows])


def report(status: dict, predicted: dict | None) -> Report:
    """The table of a run's status and of what `probe` had said (None: nothing)."""
    rows = []
    for what, actual, said, unit in ROWS:
        found, before = status.get(actual), (predicted or {}).get(said)
        per = 1 if said == "minutes" else unit
        rows.append((what, None if before is None else before / per,
                     None if found is None else found / unit))
    return Report(f"{status['state']}, {status.get('processes', 1)} processes"
                  .replace(", 1 processes", ", 1 process"), rows)


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
