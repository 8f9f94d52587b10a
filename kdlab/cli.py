"""The command line: `kdlab lab`, `doctor`, `notebooks`, `study`, `train`, `data`,
`teacher`, `evaluate`, `dimension`.

Exit codes: 0 all well, 1 something was found or failed, 2 the command could not be carried out,
130 stopped by Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

import kdlab
from kdlab import commands
from kdlab.profiles import PROFILES


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("kdlab", description="A workbench for face distillation.")
    top.add_argument("--version", action="version", version=f"kdlab {kdlab.__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    group = top.add_subparsers(required=True, metavar="COMMAND")

    one = group.add_parser("lab", help="open the course in JupyterLab, on this machine only")
    one.add_argument("--port", type=_port, default=8888, help="or the next free one; 0 for any")
    one.add_argument("--no-browser", action="store_true", help="only print the address")
    one.set_defaults(run=commands.lab)

    one = group.add_parser("doctor", help="what is installed here, and how to mend it")
    one.set_defaults(run=commands.doctor)

    one = group.add_parser("notebooks", help="run, lint, strip, list the course; its status")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("run", help="run notebooks headless, one after another")
    one.add_argument("names", nargs="*", help="as in index.yml; all when none is named")
    one.add_argument("--profile", choices=PROFILES, default="smoke")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--out", type=Path, help="folder for executed copies (default: the cache)")
    one.add_argument("--timeout", type=_positive, help="seconds of wall time a notebook")
    one.add_argument("--record", action="store_true",
                     help="keep minutes, size and claims in notebooks/, and render STATUS.md")
    one.set_defaults(run=commands.run)
    one = actions.add_parser("status", help="render notebooks/STATUS.md from what is recorded")
    one.set_defaults(run=commands.status)
    one = actions.add_parser("lint", help="check the notebooks without running them")
    one.add_argument("names", nargs="*", help="names or files; all when none is given")
    one.set_defaults(run=commands.lint)
    one = actions.add_parser("strip", help="remove outputs and widget state")
    one.add_argument("paths", nargs="*", type=Path, help="files; the whole course when none")
    one.set_defaults(run=commands.strip)
    one = actions.add_parser("list", help="the course in reading order, with minutes")
    one.set_defaults(run=commands.listing)

    one = group.add_parser("study", help="run the missing cells of a long experiment")
    one.add_argument("name", nargs="?", help="as in studies/; none: list them")
    one.add_argument("--limit-minutes", type=_positive, help="begin no cell beyond this")
    one.set_defaults(run=commands.study)

    one = group.add_parser("train", help="train a student as a run file says")
    one.add_argument("config", help="a YAML file")
    one.set_defaults(run=commands.train)

    one = group.add_parser("data", help="look at a data set")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser(
        "check", help="what a set of faces holds, and what is wrong with it",
        description="Counts, unreadable files, pictures that are there twice, leaks into a "
        "benchmark, channel order and alignment; Ctrl-C reports what was found until then.",
        epilog="Exit code 0: all files could be read; 1: some could not; 130: stopped.")
    one.add_argument("path", help="a folder of identities, a .rec, a .bin, or a rendered set")
    one.add_argument("--benchmark", help="another of these that must hold none of its pictures")
    one.add_argument("--out", type=Path, default=Path("data-check"),
                     help="folder for the report (default data-check)")
    one.add_argument("--sample", type=int, default=300,
                     help="pictures the dlib teacher is asked about (default 300)")
    one.add_argument("--embed", type=int, default=0, metavar="N",
                     help="look for one person under two identities among N pictures, too")
    one.add_argument("--no-teacher", action="store_true", help="leave the dlib teacher out")
    one.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    one.set_defaults(run=commands.data_check)

    one = group.add_parser(
        "dimension", help="the intrinsic dimension of embeddings (TwoNN)",
        description="TwoNN of the rows of a .npy file, and the mean over draws of ReFO's protocol.",
        epilog="Take one picture of each person to imitate the paper, whose sample has 0.7: where "
               "there are many, both neighbours of a picture show the same person, and what is "
               "measured is the dimension of one person's pictures.")
    one.add_argument("file", help="a .npy file (rows, columns), one embedding a row")
    one.add_argument("--method", default="fit", help="fit (default), mle or mle_unbiased")
    one.add_argument("--discard", type=float, default=0.1,
                     help="share of largest ratios that the fit leaves out (default 0.1)")
    one.add_argument("--repeats", type=int, default=20, help="draws (default 20)")
    one.add_argument("--fraction", type=float, default=0.9,
                     help="share of the rows in a draw (default 0.9)")
    one.add_argument("--no-normalize", action="store_true",
                     help="take rows as they are, not scaled to length 1")
    one.add_argument("--seed", type=int, default=0, help="of the draws")
    one.add_argument("--json", action="store_true", help="print all numbers as JSON")
    one.set_defaults(run=commands.dimension)

    one = group.add_parser("teacher", help="examine a teacher's file")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser(
        "check", help="how it wants its pictures, and what its embeddings are like",
        description="Tries channels, scalings and crops on rendered and ORL faces, reports, and "
                    "writes FILE.contract.json where the file says nothing or the wrong thing.")
    one.add_argument("file", help="a .onnx or .safetensors file, or a shipped teacher's name")
    one.add_argument("--people", type=int, default=40, help="rendered people (default 40)")
    one.add_argument("--size", type=int, help="pixels, where an ONNX file leaves them open")
    one.add_argument("--output", help="of an ONNX file with several, the embedding's name")
    one.add_argument("--dry-run", action="store_true", help="write no contract")
    one.add_argument("--json", action="store_true", help="print all numbers as JSON")
    one.set_defaults(run=commands.teacher_check)

    one = group.add_parser("evaluate", help="judge a model on sets of faces")
    one.add_argument("model", help="a run's folder, a .safetensors or .onnx file, a teacher's name")
    one.add_argument("--on", nargs="+", required=True, metavar="SET",
                     help="orl, a protocol's name, a folder of people, a .rec or a .bin")
    one.add_argument("--out", type=Path, default=Path("evaluation"),
                     help="folder for evaluation.json and figures (default evaluation)")
    one.add_argument("--crop", choices=["arcface", "dlib"], default="arcface",
                     help="how pictures from files are aligned (default arcface)")
    one.add_argument("--people", type=int, help="of a rendered protocol, instead of all")
    one.add_argument("--json", action="store_true", help="print all numbers as JSON")
    one.set_defaults(run=commands.evaluate)
    return top


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return value


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors people can mend are one line, `--debug` shows where they come from."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("kdlab: stopped", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        if args.debug:
            raise
        print(f"kdlab: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
