"""What a checkpoint costs a run, and what it costs to go on from one.

    python benchmarks/checkpoints.py                    # two minutes on two cores
    python benchmarks/checkpoints.py --device cuda --states iresnet50 --json checkpoints.json

Pause: the seconds that a step with a checkpoint after it takes longer than one without, measured
through train(); beside it torch.save of the same tensors, which is neither hashed nor renamed into
place, written through to the disk as ours is, and not. Resume: from the call of train() to the end
of its first step, in a folder whose run was stopped in the middle of an epoch, against an empty
folder; modules are loaded and threads started before. A state is the network, ArcFace's class rows
and the momentum of both. Disks differ more than anything else here: put --folder on the one that
runs are kept on.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from alternate import Steps, machine
from safetensors.torch import load_file
from setting import Setting

from kdlab.train import train

STATES = {  # network -> images a batch: what makes a step take about a second on two cores
    "ir_student": 128, "iresnet50": 2}
EVERY = 3  # steps from one checkpoint to the next here
USUAL = 1000  # steps between two in a long run, ours: minutes of a GPU's work


def pause(setting: Setting, out: Path, checkpoints: int) -> dict[str, float]:
    """Seconds of a plain step, of the pause and of torch.save; bytes of a checkpoint."""
    steps = Steps(setting.batches(), checkpoints * EVERY + 1)
    config = setting.config.model_copy(update={"out": out, "checkpoint_every": EVERY, "keep": 1})
    train(config, setting.student(), setting.losses(), steps)
    took = [b - a for a, b in zip(steps.wall, steps.wall[1:], strict=False)][1:-1]  # whole steps
    kept = [s for k, s in enumerate(took, 2) if k % EVERY == 0]
    plain = statistics.median(s for k, s in enumerate(took, 2) if k % EVERY)
    path = max((out / "checkpoints").glob("*.safetensors"))
    state = load_file(path)
    return {"step": plain, "pause": statistics.median(kept) - plain,
            "bytes": path.stat().st_size, "tensors": len(state),
            "torch_save": written(state, out / "peer", sync=False),
            "torch_save_synced": written(state, out / "peer", sync=True)}


def written(state: dict[str, torch.Tensor], path: Path, sync: bool, repeats: int = 3) -> float:
    """Median seconds of torch.save of the state to a new file, with or without fsync."""
    times = []
    for _ in range(repeats):
        mark = time.perf_counter()
        with open(path, "wb") as file:
            torch.save(state, file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        times.append(time.perf_counter() - mark)
        path.unlink()
    return statistics.median(times)


def resume(setting: Setting, out: Path, repeats: int) -> dict[str, float]:
    """Median seconds to the end of the first step: in an empty folder, and of a stopped run.

    An epoch of the setting has four steps or more, or the first is not whole when it is stopped.
    """
    found = {"fresh": [], "resumed": []}
    for repeat in range(repeats):
        config = setting.config.model_copy(update={"out": out / str(repeat), "keep": 1})
        batches = setting.batches()
        half = len(batches) // 2

        def stop(done: int, config=config, half=half) -> None:
            if done == half - 1:  # the run ends after the step that this batch is for
                (config.out / "stop").touch()

        for kind in found:
            steps = Steps(batches, len(batches), stop if kind == "fresh" else None)
            mark = time.perf_counter()
            try:
                train(config, setting.student(), setting.losses(), steps)
            except KeyboardInterrupt:  # of the file
                pass
            found[kind].append(steps.wall[1] - mark)
        if len(steps.wall) - 1 != len(batches) - half:
            raise SystemExit(f"the resumed run took {len(steps.wall) - 1} steps, not the "
                             f"{len(batches) - half} that were left")
    return {kind: statistics.median(times) for kind, times in found.items()}


def measure(name: str, batch: int, args: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        setting = Setting(folder, name, batch, 4 * batch, args.classes, args.device)
        found = pause(setting, Path(folder, "pause"), args.checkpoints)
        return found | resume(setting, Path(folder, "resume"), args.repeats)


def show(name: str, found: dict[str, float]) -> None:
    share = found["pause"] / (USUAL * found["step"] + found["pause"])
    print(f"{name}: a checkpoint of {found['bytes'] / 1e6:.0f} MB, {found['tensors']} tensors\n"
          f"  pause {found['pause']:.2f} s, a step {found['step']:.2f} s; every {USUAL} steps "
          f"that is {share:.3%} of the time\n"
          f"  over torch.save with fsync ({found['torch_save_synced']:.2f} s) "
          f"{found['pause'] / found['torch_save_synced']:.2f}, without "
          f"({found['torch_save']:.2f} s) {found['pause'] / found['torch_save']:.2f}\n"
          f"  first step after {found['resumed']:.2f} s when resumed, {found['fresh']:.2f} s "
          f"fresh: {found['resumed'] - found['fresh']:+.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", nargs="+", default=[*STATES], choices=STATES)
    parser.add_argument("--batch", type=int, help="images; default: what each state says")
    parser.add_argument("--classes", type=int, default=1000, help="class rows")
    parser.add_argument("--checkpoints", type=int, default=3, help="pauses measured")
    parser.add_argument("--repeats", type=int, default=3, help="resumed runs")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's own")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    result = machine(args.device) | {"classes": args.classes, "states": {}}
    print(f"{result['machine']}, {result['threads']} threads, {args.device}, torch "
          f"{torch.__version__}; load before: {result['load_before']:.1f}\n")
    for name in args.states:
        result["states"][name] = found = measure(name, args.batch or STATES[name], args)
        show(name, found)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
