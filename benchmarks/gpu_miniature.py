"""One whole miniature on a GPU: faces, a teacher, students by five methods, judged on strangers.

    PYTHONPATH=. python benchmarks/gpu_miniature.py --minutes 9          # again, until it exits 0
    PYTHONPATH=. python benchmarks/gpu_miniature.py --piece render
    PYTHONPATH=. python benchmarks/gpu_miniature.py --toy                # on a CPU, seconds

Asks for torch, numpy, pydantic, safetensors, pillow and pyyaml beside this checkout. A call does
what comes next until --minutes have passed, stops at a checkpoint and says what is left (exit 1);
the same call on the same machine goes on. Pieces, and the minutes of one H200 planned for each:

render    6.5  5,000 people x 50 pictures, and 300 x 8 of others to judge on. Estimate: 16 processes
               at 40 pictures/s each; one CPU core draws 70 to 100 (benchmarks/world.py), and about
               half of its time is spent on what a GPU takes over.
teacher   6    IR-50 by ArcFace, bf16, batch 512. Estimate: 38 GFLOP a picture and a quarter of the
               790 TFLOP/s that the device's matrix product reaches: 5,000 images/s, seven epochs.
               The rate is measured first and the number of steps follows from it.
students  9    the teacher's embeddings (1.5), then MobileFaceNet by ArcFace, EKD, AdaDistill,
               ShrinkTeaNet's last layer and FeatureOnly: as many steps of as many images for each,
               as measured rates allow, seeds (3 at most) before epochs beyond two. Estimate: 8,000
               images/s, held by memory and not arithmetic: 2.5 epochs for each, one seed.
judge     1.5  TPR at FPR 1e-3 and 1e-4 (2.9 million pairs), 95 % intervals over people and seeds.

23 of 30 minutes; the rest is for starting and for what was estimated wrongly. To --home go
miniature.json, after every piece, and one student a method in float16.

Rates: ArcFace 0.1 at batch 512 (insightface), also where it is one of two losses; AdaDistill and
FeatureOnly 16 and 60 times that, as the study first_light found best on rendered validation
people; EKD's weights times 16, as the study ekd did. Nothing is chosen by the people judged on.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from alternate import machine
from miniature_faces import draw, faces
from miniature_judge import halved, judged, summary
from miniature_runs import LOSSES, Late, Runs
from safetensors import safe_open
from safetensors.torch import load_file, save

from kdlab import home
from kdlab.cache import cache_dir, write_atomic

PIECES = ("render", "teacher", "students", "judge")
STRANGERS = 20_000  # first number of the people judged on: kdlab.world.protocols.TEST
SIZES = {  # begin: seconds that must be left for a piece to begin, or to go on
    "gpu": {"device": "cuda", "people": 5000, "each": 50, "strangers": 300, "strangers_each": 8,
            "teacher": "iresnet50", "student": "mobilefacenet", "side": 112, "batch": 512,
            "precision": "bf16", "probe": 25, "teacher_seconds": 330, "students_seconds": 430,
            "fprs": [1e-3, 1e-4],
            "begin": {"render": 30, "teacher": 45, "students": 110, "judge": 100}},
    "toy": {"device": "cpu", "people": 6, "each": 4, "strangers": 6, "strangers_each": 2,
            "teacher": "ir_teacher", "student": "ir_student", "side": 48, "batch": 16,
            "precision": "float32", "probe": 1, "teacher_seconds": 0, "students_seconds": 0,
            "fprs": [1e-1], "begin": dict.fromkeys(PIECES, 0)}}
LEAST, MOST = 2, 3  # epochs that a student sees before there is a second seed; seeds


class Miniature:
    """The four pieces over one folder. results: what miniature.json holds."""

    def __init__(self, sizes: dict, work: Path, home: Path, until: float, workers: int = 1,
                 draw_on: str | None = None):
        self.sizes, self.work, self.home, self.until = sizes, work, home, until
        self.workers, self.draw_on = workers, draw_on or sizes["device"]
        self.runs = Runs(sizes, work, until)
        path = work / "results.json"
        self.results = json.loads(path.read_text()) if path.exists() else {
            "sizes": sizes, "done": [], "seconds": dict.fromkeys(PIECES, 0.0)}
        if self.results["sizes"] != sizes:
            raise SystemExit(f"{work} holds a miniature of other sizes; choose another --work")
        self.results["where"] = machine(sizes["device"])

    def keep(self) -> None:
        text = json.dumps(self.results, indent=1) + "\n"
        write_atomic(self.work / "results.json", text)
        write_atomic(self.home / "miniature.json", text)

    def do(self, piece: str) -> None:
        """A piece, or the rest of it; Late where time ends first."""
        mark = time.monotonic()
        if mark + self.sizes["begin"][piece] > self.until:
            raise Late
        try:
            getattr(self, piece)()
            self.results["done"].append(piece)
        finally:
            self.results["seconds"][piece] += time.monotonic() - mark
            self.keep()

    def render(self) -> None:
        sets = {"people": (range(self.sizes["people"]), self.sizes["each"]),
                "strangers": (range(STRANGERS, STRANGERS + self.sizes["strangers"]),
                              self.sizes["strangers_each"])}
        for name, (people, each) in sets.items():
            if not draw(self.work, name, people, each, self.draw_on, self.workers, self.until):
                raise Late
        self.results["pictures"] = {"number": sum(len(p) * each for p, each in sets.values()),
                                    "drawn_on": self.draw_on, "processes": self.workers}

    def teacher(self) -> None:
        if "teacher" not in self.results:
            cost = self.runs.seconds("teacher", "ArcFace")
            steps = max(int(self.sizes["teacher_seconds"] / cost), 2)
            self.results["teacher"] = {"steps": steps, "seconds_per_step": cost,
                                       "epochs": steps / len(self.runs.batches())}
            self.keep()
        plan = self.results["teacher"]
        plan |= self.runs.run("teacher", "teacher", "ArcFace", plan["steps"])

    def students(self) -> None:
        known = self.runs.embeddings()
        if "students" not in self.results:
            costs = {method: self.runs.seconds("student", method, known) for method in LOSSES}
            budget, epoch = self.sizes["students_seconds"] / sum(costs.values()), len(
                self.runs.batches())
            seeds = min(max(int(budget / (LEAST * epoch)), 1), MOST)
            steps = max(int(budget / seeds), 2)
            self.results["students"] = {
                "steps": steps, "images": steps * self.sizes["batch"], "epochs": steps / epoch,
                "seeds": seeds, "seconds_per_step": costs, "runs": {}}
            self.keep()
        plan = self.results["students"]
        for seed in range(plan["seeds"]):
            for method in LOSSES:
                name = f"{method}-seed{seed}"
                if name in plan["runs"]:
                    continue
                try:
                    plan["runs"][name] = self.runs.run(name, "student", method, plan["steps"],
                                                       seed, known)
                except FloatingPointError as error:  # one that diverges: the others still count
                    plan["runs"][name] = {"failed": str(error)}
                self.keep()

    def judge(self) -> None:
        trained = self.results["students"]["runs"]
        runs = {"teacher": ["teacher"]}
        for method in LOSSES:
            names = [name for name in trained
                     if name.startswith(f"{method}-") and "failed" not in trained[name]]
            runs |= {method: names} if names else {}
        strangers = faces(self.work, "strangers", self.sizes["strangers_each"])
        found = judged([name for names in runs.values() for name in names], self.runs.load,
                       strangers, self.sizes["side"], self.sizes["fprs"])
        self.results["judged"] = summary(found, runs, "ArcFace")
        for method, names in runs.items():
            if method != "teacher":
                self.bring(names[0], method)

    def bring(self, name: str, method: str) -> None:
        """A student's file in float16, home."""
        file = self.work / name / "student.safetensors"
        with safe_open(file, "pt") as opened:
            told = opened.metadata()
        write_atomic(self.home / f"{method}.safetensors", save(halved(load_file(file)), told))


def show(results: dict) -> None:
    """The table of the judged networks."""
    for method, row in results.get("judged", {}).items():
        said = [f"{key} {value['mean']:.1%} ({value['low']:.1%} - {value['high']:.1%})"
                for key, value in row.items() if isinstance(value, dict) and "mean" in value]
        gain = [f"{key} {value['estimate']:+.1%} ({value['low']:+.1%} - {value['high']:+.1%})"
                for key, value in row.items() if isinstance(value, dict) and "estimate" in value]
        print(f"{method:<14}{row['seeds']} seed(s)  " + "  ".join(said + gain))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--piece", choices=PIECES, help="this one alone; default: what is left")
    parser.add_argument("--minutes", type=float, default=9, help="of this call")
    parser.add_argument("--work", type=Path, help="state; default: in the cache folder, with --toy "
                        "a temporary one")
    parser.add_argument("--home", type=Path, help="results; default: data/results/gpu/miniature, "
                        "with --toy the work folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1,
                        help="processes that render; one: no other than this")
    parser.add_argument("--draw-on", choices=("cpu", "cuda"), help="where faces are rendered; "
                        "default: the GPU (many cores with numba may be faster)")
    parser.add_argument("--toy", action="store_true", help="small, on the CPU: does it run?")
    args = parser.parse_args(argv)
    if not args.toy and not torch.cuda.is_available():
        print("gpu_miniature.py: torch finds no GPU here, so nothing was run; --toy goes through "
              "the motions on the CPU", file=sys.stderr)
        return 2
    until = time.monotonic() + 60 * args.minutes
    with contextlib.ExitStack() as stack:
        work = args.work or (Path(stack.enter_context(tempfile.TemporaryDirectory()))
                             if args.toy else cache_dir("gpu_miniature"))
        there = args.home or (work if args.toy else home() / "data/results/gpu/miniature")
        mini = Miniature(SIZES["toy" if args.toy else "gpu"], work, there, until,
                         1 if args.toy else args.workers, args.draw_on)
        done = mini.results["done"]
        for piece in [p for p in PIECES if p not in done and args.piece in (None, p)]:
            missing = [p for p in PIECES[:PIECES.index(piece)] if p not in done]
            if missing:
                print(f"{piece} needs {', '.join(missing)} first", file=sys.stderr)
                return 1
            try:
                mini.do(piece)
            except Late:
                print(f"{piece} is not finished; the same call goes on with it", file=sys.stderr)
                return 1
            print(f"{piece}: {mini.results['seconds'][piece]:.0f} s", flush=True)
        show(mini.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
