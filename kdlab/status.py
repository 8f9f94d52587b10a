"""What the course measured: kept in notebooks/status.json, shown in notebooks/STATUS.md.

Only a run that is asked to (`kdlab notebooks run --record`) keeps anything, so a run on every push
leaves the work tree as it is. The page is made from the records alone, and says "not measured"
where there is none and "older text" where the notebook's code has changed since.
"""

import json
import os
from pathlib import Path

import kdlab
from kdlab.cache import locked, write_atomic
from kdlab.claims import HELD, NOT_HELD, NOT_TESTED
from kdlab.course import Status, read, text_key
from kdlab.profiles import PROFILES, budget, index

RECORDS, PAGE = "status.json", "STATUS.md"
ALWAYS = ("smoke", "cpu")  # the profiles every notebook has; others get a row once they ran
KEPT = ("text", "verdict", "why", "estimate", "interval", "unit", "seeds", "source")  # of a claim
NUMBERS = ("seconds", "bytes", "seed", "cores", "threads")
WORDS = ("state", "text", "kdlab", "torch")
OLDER = "older text"

HEAD = """\
# What the course takes, and what it found

Made by `kdlab notebooks status` from `status.json`; change neither by hand. To measure anew:
`kdlab notebooks run NAME --profile cpu --record` on a machine that does nothing else.

Minutes are wall time, kernel start included. *Not measured*: no run of this notebook in this
profile is recorded. *Older text*: its code has changed since, so the row and the claims speak of an
earlier version. The smoke profile judges nothing: its claims are all NOT TESTED.

| notebook | profile | state | minutes | budget | executed, kB | HELD | NOT HELD | NOT TESTED | on |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""


def record(rows: list[Status], profile: str, seed: int = 0, folder: Path | None = None) -> Path:
    """Keep what `kdlab.course.run` measured and render the page; returns the records' file.

    A notebook's earlier record in the same profile is replaced, one that the index no longer has
    is dropped. Rows of notebooks that never began (missing, too large to run) are not kept.
    """
    import torch  # here: rendering and `--help` do without it

    folder = folder or kdlab.home() / "notebooks"
    machine = {"kdlab": kdlab.__version__, "torch": torch.__version__, "cores": _cores(),
               "threads": torch.get_num_threads(), "seed": seed,
               "gpu": torch.cuda.get_device_name() if profile == "gpu" else None}
    path = folder / RECORDS
    with locked(path):
        kept = records(folder)
        for row in rows:
            if row.text:
                kept.setdefault(profile, {})[row.notebook] = machine | {
                    "state": row.state, "seconds": round(row.seconds, 1), "bytes": row.size,
                    "text": row.text, "claims": [{k: c[k] for k in KEPT} for c in row.claims]}
        names = index(folder)
        kept = {p: {n: r for n, r in part.items() if n in names} for p, part in kept.items()}
        write_atomic(path, json.dumps(kept, indent=1, sort_keys=True, allow_nan=False) + "\n")
        write(folder)
    return path


def _cores() -> int:
    """Cores this process may use; the kernel may give it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def records(folder: Path | None = None) -> dict[str, dict[str, dict]]:
    """profile -> notebook -> record; {} where nothing is recorded.

    ValueError in one line for a file that this module did not write.
    """
    path = (folder or kdlab.home() / "notebooks") / RECORDS
    try:
        kept = json.loads(path.read_text())
        for profile, part in kept.items():
            if profile not in PROFILES or not all(_whole(r) for r in part.values()):
                raise ValueError
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise ValueError(f"{path} holds no records of runs; restore it with git, or delete it and "
                         "run the notebooks with --record") from None
    return kept


def _whole(r: dict) -> bool:
    return (all(isinstance(r[k], int | float) for k in NUMBERS)
            and all(isinstance(r[k], str) for k in WORDS)
            and all(c.keys() == set(KEPT) for c in r["claims"]))


def write(folder: Path | None = None) -> Path:
    """Render the page beside the records, whole or not at all."""
    path = (folder or kdlab.home() / "notebooks") / PAGE
    write_atomic(path, render(folder))
    return path


def render(folder: Path | None = None) -> str:
    """STATUS.md: a row per notebook and profile in reading order, then the claims of the cpu runs.

    Made of status.json, index.yml and the notebooks' own text; no clock, no machine.
    """
    folder = folder or kdlab.home() / "notebooks"
    kept, table, found = records(folder), [], []
    for name in index(folder):
        now = _now(folder / f"{name}.ipynb")
        for profile in PROFILES:
            r = kept.get(profile, {}).get(name)
            if r or profile in ALWAYS:
                table.append(_row(name, profile, r, now, budget(name, profile, folder)))
        found += [f"### [{name}]({name}.ipynb)", "", *_claims(kept.get("cpu", {}).get(name), now),
                  ""]
    return (HEAD + "\n".join(table) + "\n\n## Claims in the last recorded `cpu` run\n\n"
            "A verdict follows from the interval, never from the estimate; what does not hold "
            "stays in view. From a\nstudy: its stored results, judged in this run, not computed "
            "in it.\n\n" + "\n".join(found).rstrip() + "\n")


def _now(notebook: Path) -> str | None:
    return text_key(read(notebook)) if notebook.exists() else None


def _row(name: str, profile: str, r: dict | None, now: str | None, minutes: float) -> str:
    limit = "-" if minutes == float("inf") else f"{minutes:g}"
    cells = [f"[{name}]({name}.ipynb)", profile]
    if r is None:
        return _line([*cells, "not measured", "-", limit, *["-"] * 5])
    state = r["state"] if r["text"] == now else f"{r['state']}, {OLDER}"
    took = r["seconds"] / 60
    state += ", over budget" * (took > minutes)
    verdicts = [c["verdict"] for c in r["claims"]]
    return _line([*cells, state, f"{took:.2f}" if took < 1 else f"{took:.1f}", limit,
                  f"{r['bytes'] / 1000:.0f}",
                  *(str(verdicts.count(v)) for v in (HELD, NOT_HELD, NOT_TESTED)), _machine(r)])


def _machine(r: dict) -> str:
    cores = f"{r['cores']} core{'s' * (r['cores'] != 1)}"
    if r["threads"] != r["cores"]:
        cores += f", {r['threads']} thread{'s' * (r['threads'] != 1)}"
    where = f"{r['gpu']}, {cores}" if r.get("gpu") else cores
    return f"{where}; kdlab {r['kdlab']}, torch {r['torch']}; seed {r['seed']}"


def _claims(r: dict | None, now: str | None) -> list[str]:
    if r is None:
        return ["Not measured."]
    lines = ["Older text: the code has changed since.", ""] * (r["text"] != now)
    if not r["claims"]:
        return [*lines, "It made no claim."]
    lines += ["| claim | verdict | estimate | seeds | from |", "| --- | --- | ---: | --- | --- |"]
    for c in r["claims"]:
        seeds = "-" if c["seeds"] is None else ", ".join(map(str, c["seeds"]))
        source = "this run" if c["source"] == "live" else f"study {c['source']}"
        lines.append(_line([c["text"], f"**{c['verdict']}**: {c['why']}", _estimate(c), seeds,
                            source]))
    return lines


def _estimate(c: dict) -> str:
    if c["estimate"] is None:
        return "-"
    number = f"{c['estimate']:.4g}{c['unit']}"
    if c["interval"] is None:
        return f"{number}, no interval"
    low, high = c["interval"]
    return f"{number}, exact" if low == high else f"{number} [{low:.4g}, {high:.4g}]"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
