"""The verdict on a claim, computed from its interval, and the ledger that keeps it."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from kdlab.cache import locked, write_atomic

HELD, NOT_HELD, NOT_TESTED = "HELD", "NOT HELD", "NOT TESTED"
DIRECTIONS = ("greater", "less", "within")


@dataclass(frozen=True)
class Claim:
    """One line of the ledger.   interval: (low, high) or None.   seeds: those behind it."""

    notebook: str
    text: str
    verdict: str
    why: str
    estimate: float | None
    interval: tuple[float, float] | None
    direction: str
    threshold: float
    unit: str
    seeds: list[int] | None
    source: str
    profile: str

    def __str__(self) -> str:
        parts = []
        if self.estimate is not None:
            number = f"{self.estimate:.4g}{self.unit}"
            if self.interval is not None:
                number += f" [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
            parts.append(number)
        if self.seeds is not None:
            count = len(self.seeds)
            parts.append(f"{count} seed{'s' * (count != 1)}")
        parts.append("computed here" if self.source == "live" else
                     f"stored by study {self.source}, not computed here")
        return f"{self.verdict:<10}  {self.text}\n{'':12}{self.why}; {', '.join(parts)}"

    def _ipython_display_(self) -> None:
        """Nothing: claim() has printed it; a cell that ends in claim() must not say it twice."""


def verdict(estimate: float | None, interval, direction: str = "greater",
            threshold: float = 0.0) -> tuple[str, str]:
    """HELD, NOT HELD or NOT TESTED, and why in words.

    interval: (low, high) of the estimate, or "exact" for a number without sampling error.
    direction: "greater": the whole interval lies above `threshold`; "less": below it; "within":
    inside [-threshold, threshold], the equivalence margin that is set before looking.
    An interval that touches or crosses the threshold is NOT HELD: undecided is not a yes.
    Without an interval, or with a number that is not finite, NOT TESTED.
    ValueError for an unknown direction, a reversed interval or a margin that is not positive.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is one of {', '.join(DIRECTIONS)}, not {direction!r}")
    if not math.isfinite(threshold) or (direction == "within" and threshold <= 0):
        raise ValueError(f"threshold {threshold!r}: a finite number, positive for 'within'")
    estimate, interval = numbers(estimate, interval)
    if estimate is None:
        return NOT_TESTED, "no result"
    if interval is None:
        return NOT_TESTED, "no interval: an estimate alone decides nothing"
    low, high = interval
    if not all(math.isfinite(x) for x in (estimate, low, high)):
        return NOT_TESTED, "the result is not a finite number"
    if low > high:
        raise ValueError(f"interval ({low}, {high}): the lower end comes first")
    floor, ceiling = {"greater": (threshold, math.inf), "less": (-math.inf, threshold),
                      "within": (-threshold, threshold)}[direction]
    inside = f"between {floor:g} and {ceiling:g}" if direction == "within" else (
        f"{'above' if direction == 'greater' else 'below'} {threshold:g}")
    if (floor < low and high < ceiling) or (direction == "within" and
                                             floor <= low and high <= ceiling):
        return HELD, f"the interval lies {inside}"
    if high <= floor or low >= ceiling:
        return NOT_HELD, f"refuted: nothing of the interval lies {inside}"
    return NOT_HELD, f"undecided: only part of the interval lies {inside}"


def numbers(estimate, interval) -> tuple[float | None, tuple[float, float] | None]:
    """Both as plain floats; "exact" becomes the interval of width nought."""
    estimate = None if estimate is None else float(estimate)
    if interval is None or estimate is None:
        return estimate, None
    if isinstance(interval, str):
        if interval != "exact":
            raise ValueError(f"interval is (low, high) or 'exact', not {interval!r}")
        return estimate, (estimate, estimate)
    if len(interval) != 2:
        raise ValueError(f"interval is (low, high) or 'exact', not {interval!r}")
    return estimate, (float(interval[0]), float(interval[1]))


def seed_list(seeds) -> list[int] | None:
    if seeds is None:
        return None
    if isinstance(seeds, int):
        raise ValueError(f"seeds is the list of seeds, not their number ({seeds}); "
                         f"write seeds=[{seeds}] or range({seeds})")
    return [int(s) for s in seeds]


def ledger(path: str | Path) -> list[dict]:
    """The claims of a ledger file, oldest first; [] where there is no file."""
    path = Path(path)
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())
        if all(row["notebook"] and row["text"] for row in rows):
            return rows
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is not a ledger of claims; move it away and run the notebook again")


def record(claim: Claim, path: str | Path) -> None:
    """Put a claim into the ledger in place of the same notebook's claim of the same words."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    row = asdict(claim)
    for name in ("estimate", "interval"):  # JSON knows no NaN
        values = row[name] if isinstance(row[name], tuple) else (row[name],)
        if not all(v is None or math.isfinite(v) for v in values):
            row[name] = None
    with locked(path):
        rows = ledger(path)
        same = [i for i, r in enumerate(rows)
                if (r["notebook"], r["text"]) == (claim.notebook, claim.text)]
        if same:
            rows[same[0]] = row
        else:
            rows.append(row)
        write_atomic(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")
