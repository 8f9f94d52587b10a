"""What each command of `kdlab` does: the parsed arguments -> the exit code.

Each imports what it needs, so that `kdlab --help` does not wait for PyTorch.
"""

import json
from pathlib import Path

import kdlab
from kdlab.profiles import index


def lab(args) -> int:
    from kdlab.lab import lab

    return lab(args.port, not args.no_browser)


def doctor(_) -> int:
    from kdlab.doctor import WRONG, doctor

    return int(any(row.state == WRONG for row in doctor()))


def run(args) -> int:
    from kdlab.course import run

    rows = run(args.names, args.profile, args.out, args.timeout, args.seed)
    if args.record:
        from kdlab.status import record

        print(f"recorded in {record(rows, args.profile, args.seed)}")
    return int(not all(row.ok for row in rows))


def status(_) -> int:
    from kdlab.status import write

    print(f"rendered {write()}")
    return 0


def lint(args) -> int:
    from kdlab.lint import lint

    names = {Path(name).stem for name in args.names}
    there = {path.stem for path in (kdlab.home() / "notebooks").glob("*.ipynb")}
    if names - there:
        raise ValueError(f"no notebook {', '.join(sorted(names - there))} in "
                         f"{kdlab.home() / 'notebooks'}; there are: {', '.join(sorted(there))}")
    found = [finding for finding in lint() if not names or finding.notebook in names]
    for finding in found:
        print(finding)
    errors = sum(finding.level == "error" for finding in found)
    print(f"{errors} errors, {len(found) - errors} warnings")
    return int(errors > 0)


def strip(args) -> int:
    from kdlab.course import strip

    for path in args.paths or sorted((kdlab.home() / "notebooks").glob("*.ipynb")):
        print(f"{path}: {'stripped' if strip(path) else 'clean already'}")
    return 0


def listing(_) -> int:
    for name, entry in index().items():
        minutes = entry.get("minutes") or {}
        times = ", ".join(f"{profile} {minutes[profile]:g} min" for profile in minutes)
        print(f"{name:28} {entry.get('title', '')} ({times})")
        print(f"{'':28} {entry.get('goal', '')}")
    return 0


def study(args) -> int:
    from kdlab.study import names, run_study

    if args.name is None:
        print("\n".join(names()) or f"no studies in {kdlab.home() / 'studies'}")
        return 0
    return run_study(args.name, args.limit_minutes)


def train(args) -> int:
    from kdlab.train.__main__ import main as train

    return train([args.config])


def data_check(args) -> int:
    from kdlab.plots.data_check import run

    return run(args)


def dimension(args) -> int:
    from kdlab.dimension import report

    found = report(args.file, args.method, args.discard, args.repeats, args.fraction,
                   not args.no_normalize, args.seed)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    print("{file}: {rows} rows of {columns}, {duplicates} equal to an earlier one; ".format(**found)
          + ("scaled to length 1" if found["normalize"] else "lengths as they are"))
    print("dimension {dimension:.4g} +- {stderr:.2g} (standard error), {n} points, {method}\n"
          "mean of {repeats} draws of {fraction:g}: {mean:.4g} +- {std:.2g} (spread)"
          .format(**found))
    return 0


def teacher_check(args) -> int:
    from kdlab.clinic import check, words

    report = check(args.file, people=args.people, size=args.size, output=args.output,
                   write=not args.dry_run)
    print(json.dumps(report, indent=2) if args.json else words(report))
    return int(not report["works"] or report["agrees"] is False)


def evaluate(args) -> int:
    from kdlab.evaluation import evaluate_model, words

    report = evaluate_model(args.model, args.on, args.out, crop=args.crop, people=args.people)
    print(json.dumps(report, indent=2) if args.json else words(report))
    return 0
