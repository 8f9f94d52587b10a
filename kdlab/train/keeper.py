"""What the loop keeps beside the log: where a run goes on, checkpoints, the best, the end."""

import contextlib
import math
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from kdlab import distributed
from kdlab.train.checkpoint import (
    about_run,
    check_room,
    load_checkpoint,
    save_checkpoint,
    set_state,
    whole_state,
)
from kdlab.train.config import TrainConfig
from kdlab.train.log import History
from kdlab.train.student import save_student

START = {"done": 0, "best": None, "mark": None, "bad": 0, "falls": 0}
RISE = 1e-4  # relative, torch's default, which MFD used


class Keeper:
    """Reads and writes config.out for one call of train(); without an `out` it does nothing.

    Every process reads; process 0 writes. `place` is where a run stands: "done" (steps), "best"
    (validation, or None); for schedule "plateau" "mark", the validation to beat by RISE, "bad",
    validations since that did not, and "falls".
    """

    def __init__(self, config: TrainConfig, student: nn.Module, losses: nn.ModuleDict,
                 optimizer: torch.optim.Optimizer, batches, teacher,
                 validate: Callable[[nn.Module], float] | None):
        self.config, self.batches, self.validate = config, batches, validate
        self.parts = (student, losses, optimizer)
        self.about = about_run(config, student, losses, batches, teacher, validate)
        self.writes = config.out is not None and distributed.rank() == 0
        self.log = config.out / "log.jsonl" if self.writes else None

    def resume(self) -> tuple[dict, list[dict]]:
        """(place, rows of the log up to it), the state put back; a fresh start where none is.

        Raises ValueError for another run's folder and for one without a whole checkpoint, OSError
        for a folder that cannot be written or is too full.
        """
        place, rows, out = dict(START), [], self.config.out
        if out is None:
            return place, rows
        if self.writes:
            _writable(out)
            for rest in (*out.glob(".*.safetensors.*"), *out.glob("checkpoints/.*.safetensors.*")):
                rest.unlink()  # a kill while it was written
        kept = load_checkpoint(out, self.about)
        _same_everywhere(0 if kept is None else kept[0]["done"], out,
                         next(self.parts[0].parameters()).device)
        if kept is not None:
            self._no_private_state()
            place, state = kept
            set_state(state, *self.parts)
            if self.log is not None and self.log.is_file():
                rows = [r for r in History.read(self.log).rows if r["step"] <= place["done"]]
        elif self.writes and self.config.keep:
            check_room(self.config, whole_state(*self.parts))
        return place, rows

    def epoch_end(self, place: dict) -> dict[str, float]:
        """{"validation": value} where the step just done ends an epoch that is validated."""
        epoch, inside = divmod(place["done"], len(self.batches))
        last = epoch == self.config.epochs
        if self.validate is None or inside or (epoch % self.config.validate_every and not last):
            return {}
        student, losses, _ = self.parts
        student.eval()
        losses.eval()
        value = torch.zeros((), dtype=torch.float64, device=next(student.parameters()).device)
        if distributed.rank() == 0:
            devices = [value.device] if value.is_cuda else []
            with torch.random.fork_rng(devices), torch.no_grad():  # training draws as without it
                value.fill_(float(self.validate(student)))
        distributed.broadcast(value)
        student.train()
        losses.train()
        value = value.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the validation after step {place['done']} is {value}; the "
                                     "last checkpoint is from before it")
        if place["best"] is None or value > place["best"]:
            place["best"] = value
            if self.writes:
                save_student(self.config, student, self.batches, place["done"], last, "best",
                             validation=value)
        if place["mark"] is None or value > place["mark"] + RISE * abs(place["mark"]):
            place |= {"mark": value, "bad": 0}
        else:
            place["bad"] += 1
        if place["bad"] > self.config.patience:
            place |= {"bad": 0, "falls": place["falls"] + 1}
        return {"validation": value}

    def after_step(self, place: dict, log, stopping: bool) -> None:
        """A checkpoint where one is due."""
        every = self.config.checkpoint_every or len(self.batches)
        last = place["done"] == self.config.epochs * len(self.batches)
        if self.writes and self.config.keep and (stopping or last or place["done"] % every == 0):
            log.sync()
            save_checkpoint(self.config, self.about, place, whole_state(*self.parts))

    def save_student(self, done: int, finished: bool) -> None:
        """out/student.safetensors."""
        if self.writes:
            save_student(self.config, self.parts[0], self.batches, done, finished)

    def _no_private_state(self) -> None:
        """ValueError where a loss keeps in each process what only process 0's checkpoint holds."""
        for name, loss in self.parts[1].items():
            if distributed.processes() > 1 and not getattr(loss, "shared", True):
                raise ValueError(f"the loss {name!r} ({type(loss).__name__}, shared=False) keeps a "
                                 "table in each process, and a checkpoint holds that of the first; "
                                 "begin anew in another train.out, or take shared=True")


def _same_everywhere(done: int, out: Path, device: torch.device) -> None:
    """ValueError unless every process finds the run at the same step."""
    steps = distributed.gather(torch.tensor([done], device=device)).tolist()
    if len(set(steps)) > 1:
        raise ValueError(f"the processes find the run in {out} at steps {steps}; all machines must "
                         "see one folder as train.out")


@contextlib.contextmanager
def interrupts(out: Path | None) -> Iterator[Callable[[], bool]]:
    """A function that says whether the run shall stop: Ctrl-C, or a file out/stop.

    The first Ctrl-C waits for the end of the step, the second does not. The file is taken away
    when it is seen.
    """
    wish = threading.Event()

    def on_signal(number, frame):
        if wish.is_set():
            raise KeyboardInterrupt
        wish.set()

    def stopped() -> bool:
        if out is not None and distributed.rank() == 0 and (out / "stop").exists():
            (out / "stop").unlink(missing_ok=True)
            wish.set()
        return wish.is_set()

    if threading.current_thread() is not threading.main_thread():  # only there signals arrive
        yield stopped
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def memory_mb(device: torch.device) -> float:
    """What this process holds, in MB: on CUDA the most its tensors have, else its own memory.

    Pages of mapped files, such as a teacher cache, are not its own; only Linux tells them apart.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    statm = Path("/proc/self/statm")
    if statm.exists():
        _, resident, shared = map(int, statm.read_text().split()[:3])
        return (resident - shared) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise OSError(error.errno, f"the out folder {out} cannot be written "
                      f"({error.strerror or error}); choose another train.out") from error
