"""What distillation adds to a training step, the loop against insightface's, and waiting for data.

    python benchmarks/training.py                            # some five minutes on two cores
    python benchmarks/training.py --network mobilefacenet --batch 32      # 112 px: an hour
    python benchmarks/training.py --only tax --json training.json

KD tax: a step of train() with {ArcFace + method} and a cached teacher over a step with ArcFace
alone on as many images; EKD's images are half random rows and half identities x 4, as in its paper.
The target of 1.05 is for the methods a cached teacher serves; RKD stands for contrast, and so does
its teacher run beside the student, "uncached". What a log line costs is in: one a step, as
TrainConfig has it. The shares of the terms (`share_every`) are left out and timed by themselves.
Loop: the images a second of train() over those of insightface's loop (benchmarks/insightface_loop),
same network, batches, precision and straight-through ArcFace. Data: the share of a step that is
spent waiting for the batch. All numbers are of pairs of blocks of steps, taken in turns
(benchmarks/alternate.py); pictures are noise, which costs what faces cost, at a learning rate at
which nothing is learnt.
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from alternate import Steps, alternate, machine
from insightface_loop import EVERY
from PIL import Image
from setting import EACH, METHODS, Setting

from kdlab.data import Batches
from kdlab.data.folder import ImageFolder
from kdlab.train import TrainConfig, train

TARGET = 1.05  # a KD step over an ArcFace step on as many images
FASTER = 1.3  # our images a second over those of insightface's loop; on a CPU convolutions are all
BLUR = 10  # sides of the noise that JPEGs are blown up from: 5 kB each, as a rendered face's


def tax(setting: Setting, methods: list[str], turns: dict) -> dict[str, dict]:
    """Method -> `alternate` of its step and the ArcFace step; "RKD, uncached" where RKD is asked.

    "shares": of one measurement of the terms' shares, by the last method's step, `share_every` 1
    over 0.
    """
    warnings.filterwarnings("ignore", "EKD: a batch of")  # too few pairs for 1e-6: says so rightly
    rows, alone = {}, setting.form()
    for method in methods:
        rows[method] = alternate(setting.form(method, setting.cache), alone, **turns)
    if "RKD" in methods:
        rows["RKD, uncached"] = alternate(setting.form("RKD", setting.teacher()), alone, **turns)
    rows["shares"] = alternate(setting.form(methods[-1], setting.cache, share_every=1),
                               setting.form(methods[-1], setting.cache), **turns)
    return rows


def loop(setting: Setting, turns: dict) -> dict:
    """`alternate` of insightface's step over ours, both images a second among it.

    Blocks are long enough for both to write their line of log, one in ten steps.
    """
    turns = turns | {"steps": max(turns["steps"], EVERY)}
    with tempfile.TemporaryDirectory() as folder:
        found = alternate(setting.peer(Path(folder, "log")),
                          setting.form(gradient="straight_through", log_every=EVERY), **turns)
    return found | {"images_per_second": setting.batch / found["seconds_other"],
                    "insightface_images_per_second": setting.batch / found["seconds"]}


def waits(setting: Setting, steps: int) -> dict[str, float]:
    """Where the pictures are -> share of the time spent waiting for them, over so many steps."""
    found, skip = {}, 3  # threads have read ahead after that many
    with tempfile.TemporaryDirectory() as path:
        faces = jpegs(Path(path), 2 * setting.batch)
        kinds = {"memory": faces.read("arcface", setting.size, np.arange(len(faces))),
                 "image folder": faces.pixels(size=setting.size)}
        for name, pixels in kinds.items():
            batches = Steps(Batches(pixels, faces.labels, setting.batch), skip + steps)
            rows = train(setting.config, setting.student(), setting.losses(), batches).columns
            found[name] = float(np.mean(rows["data_wait"][skip:]))
    return found


def jpegs(path: Path, count: int) -> ImageFolder:
    """So many 112 x 112 pictures, EACH of a person, written to a folder."""
    random = np.random.default_rng(0)
    for k in range(count):
        noise = random.integers(256, size=(BLUR, BLUR, 3), dtype=np.uint8)
        file = path / f"{k // EACH:05d}" / f"{k % EACH}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).resize((112, 112), Image.Resampling.BICUBIC).save(file, quality=95)
    return ImageFolder(path)


def show_tax(rows: dict[str, dict]) -> None:
    print(f"{'':<16}{'ms':>8}{'ArcFace':>9}{'ratio':>8}{'95 %':>16}{'by processor':>14}")
    for name, row in rows.items():
        if name == "shares":
            continue
        print(f"{name:<16}{1000 * row['seconds']:>8.0f}{1000 * row['seconds_other']:>9.0f}"
              f"{row['ratio']:>8.3f}{row['low']:>8.3f} -{row['high']:>6.3f}"
              f"{row['processor_ratio']:>14.3f}"
              + ("" if name.startswith("RKD") else f"   target {TARGET}"))
    extra = rows["shares"]["seconds"] - rows["shares"]["seconds_other"]
    every = TrainConfig().share_every
    print(f"shares of the terms: {1000 * extra:.0f} ms, each {every} steps: "
          f"{extra / every / rows['shares']['seconds_other']:.3f} of a step")


def show_loop(row: dict) -> None:
    print(f"train() {row['images_per_second']:.0f} images/s, insightface's loop "
          f"{row['insightface_images_per_second']:.0f}: ratio {row['ratio']:.3f} "
          f"({row['low']:.3f} - {row['high']:.3f}; by processor {row['processor_ratio']:.3f}), "
          f"target on a GPU {FASTER}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="ir_student", choices=("ir_student", "mobilefacenet"))
    parser.add_argument("--batch", type=int, default=128, help="a multiple of 8")
    parser.add_argument("--classes", type=int, default=1000, help="class rows")
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=METHODS)
    parser.add_argument("--only", nargs="+", default=["tax", "loop", "data"],
                        choices=("tax", "loop", "data"))
    parser.add_argument("--pairs", type=int, default=8, help="pairs of blocks")
    parser.add_argument("--steps", type=int, default=4, help="counted steps of a block")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    if args.batch % (2 * EACH):
        parser.error(f"--batch must be a multiple of {2 * EACH}: EKD's half holds {EACH} each")
    turns = {"pairs": args.pairs, "steps": args.steps, "warm": 1}
    result = machine(args.device) | {"network": args.network, "batch": args.batch,
                                     "classes": args.classes, "target": TARGET}
    print(f"{args.network}, batch {args.batch}, {args.classes} classes, {args.pairs} pairs of "
          f"blocks of {args.steps} steps; {result['machine']}, {result['threads']} threads, "
          f"{args.device}, torch {torch.__version__}; load before: {result['load_before']:.1f}\n")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(folder, args.network, args.batch, 8 * args.batch, args.classes,
                          args.device)
        if "tax" in args.only:
            result["tax"] = tax(setting, args.methods, turns)
            show_tax(result["tax"])
        if "loop" in args.only:
            result["loop"] = loop(setting, turns)
            show_loop(result["loop"])
        if "data" in args.only:
            result["data_wait"] = waits(setting, args.steps * 2)
            for name, share in result["data_wait"].items():
                print(f"waiting for data, {name}: {share:.1%} of a step")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
