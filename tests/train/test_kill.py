"""kill -9 at any moment, and the next start ends where an undisturbed run does, bit for bit.

KDLAB_KILLS says how many steps to kill at: 3 here, 20 by `make test-kill`. This file run as a
script is the run that is killed.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny_run import Cache, batches, config, parts

from kdlab.train import History, train
from kdlab.train.checkpoint import found

KILLS = int(os.environ.get("KDLAB_KILLS", 3))
EPOCHS = 60  # of four steps, a checkpoint after each: several seconds to be killed in


def run(out: Path) -> None:
    student, losses = parts()
    train(config(out=out, epochs=EPOCHS), student, losses, batches(), Cache())


def start(out: Path) -> subprocess.Popen:
    env = os.environ | {"OMP_NUM_THREADS": "1", "KDLAB_HEADLESS": "1",
                        "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, __file__, str(out)], env=env,
                            stderr=subprocess.PIPE, text=True)


def steps(out: Path) -> int:
    """Lines of the log, whole or not."""
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_killed_at_random_steps(tmp_path):
    out, chance = tmp_path / "killed", random.Random(KILLS)
    last = 4 * EPOCHS - 10
    at = sorted(chance.sample(range(1, last), KILLS))
    for step in at:
        process = start(out)
        try:
            until = time.monotonic() + 120
            while steps(out) < step and process.poll() is None and time.monotonic() < until:
                time.sleep(0.0005)
            time.sleep(chance.random() * 0.02)  # anywhere in a step, or while it writes
            assert process.poll() is None, process.stderr.read()
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
        assert step <= steps(out) + 1 and steps(out) < 4 * EPOCHS
    process = start(out)
    assert process.wait(timeout=120) == 0, process.stderr.read()
    process.stderr.close()

    whole = start(tmp_path / "whole")
    assert whole.wait(timeout=120) == 0
    whole.stderr.close()
    mine, theirs = (load_file(found(folder)[-1]) for folder in (out, tmp_path / "whole"))
    assert mine.keys() == theirs.keys() and "losses.ekd.student_thresholds" in mine
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name
    losses = [[row["loss"] for row in History.read(folder / "log.jsonl").rows]
              for folder in (out, tmp_path / "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == 4 * EPOCHS


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]))
