"""Whom a run learns from: the teacher, and whether it, student, losses and pictures fit together.

What does not fit is found out here on shapes alone, before a picture is rendered, read or embedded.
"""

import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdlab.cache import file_digest
from kdlab.outputs import Output, Targets
from kdlab.teachers import MAX_FILE, STUDENT_SCALE, Teacher, load_teacher
from kdlab.train.build import OF_TEACHER, arguments, build_student
from kdlab.train.config import load_config

ROWS, ROWS_OF_MAPS = 64, 8  # of the rehearsal: ours; more only costs time


def run_teacher(name: str) -> Teacher:
    """A teacher by name or path; a finished student beside its run.yaml is one too.

    Raises FileNotFoundError or ValueError in one line that begins with "teacher:".
    """
    path = Path(name)
    try:
        beside = path.parent / "run.yaml"
        if path.suffix == ".safetensors" and path.is_file() and beside.is_file():
            return _own_student(path)
        return load_teacher(name)
    except FileNotFoundError as error:
        more = (f"; if a run is to leave it there, train that one first: its out is {path.parent}"
                if path.suffix == ".safetensors" else "")
        raise FileNotFoundError(f"teacher: {error}{more}") from error
    except ValueError as error:
        raise ValueError(f"teacher: {error}") from error


def _own_student(path: Path) -> Teacher:
    from kdlab.train.run import RunConfig

    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"{path} is larger than {MAX_FILE >> 20} MiB; that is no face network")
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["kdlab"])
        preprocessing, finished = about["preprocessing"], about["finished"]
        stored = load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no student that a run left ({error!r}); train it "
                         "again") from error
    if not finished and path.stem == "student":
        raise ValueError(f"{path} was stopped after {about.get('steps')} steps; finish that run "
                         "first")
    run = load_config(path.parent / "run.yaml", RunConfig)
    network = build_student(run)
    wanted = network.state_dict()
    if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in wanted.items()}:
        raise ValueError(f"{path} does not fit the {run.student} of run.yaml beside it; one of the "
                         "two is of another run")
    if not all(v.isfinite().all() for v in stored.values() if v.is_floating_point()):
        raise ValueError(f"{path} holds numbers that are not finite; train it again")
    network.load_state_dict(stored)
    contract = {**preprocessing, "network": run.student, "embedding_size": network.embedding_size}
    return Teacher(network, contract, file_digest(path), torch.zeros(network.embedding_size))


def check_teacher(run, student: nn.Module, losses: dict[str, nn.Module],
                  teacher: Teacher | None) -> str | None:
    """How the teacher takes part: "embeddings" (a cache will do), "network", "rows", None.

    ValueError for a teacher that is missing, idle, or cannot look at the pictures.
    """
    needs = {name: set(getattr(loss, "needs", None) or ()) for name, loss in losses.items()}
    if teacher is None:
        for name, wanted in needs.items():
            if wanted:
                raise ValueError(f"losses.{name}: {run.losses[name]['loss']} learns from a "
                                 "teacher, and the run has none; name one in `teacher:`")
        return None
    if not any(needs.values()):
        from kdlab.losses import LOSSES

        if any(set(OF_TEACHER) & arguments(LOSSES[s["loss"]]).keys() for s in run.losses.values()):
            return "rows"
        raise ValueError(f"teacher: no loss of this run learns from {run.teacher}; leave it out, "
                         "or add a loss")
    c, crop = teacher.contract, run.crop
    more = next((name for name, wanted in needs.items() if wanted - {"embedding"}), None)
    if more is None:
        if run.sizes.get(c["crop"], 0) < c["size"]:
            have = ", ".join(f"{name} {side}" for name, side in run.sizes.items())
            raise ValueError(f"teacher: {run.teacher} looks at the {c['crop']!r} crop at "
                             f"{c['size']} pixels; the pictures of this run are: {have}")
        return "embeddings"
    if (c["crop"], c["size"]) != (crop, student.input_size) or (
            c["mean"], c["divide"]) != STUDENT_SCALE:
        raise ValueError(
            f"losses.{more}: {run.losses[more]['loss']} needs the teacher's "
            f"{' and '.join(sorted(needs[more] - {'embedding'}))}, so both networks look at one "
            f"picture: the student at {student.input_size} pixels of {crop!r}, scaled to -1 .. 1, "
            f"{run.teacher} at {c['size']} of {c['crop']!r}, (x - {c['mean'][0]:g}) / "
            f"{c['divide']}; take a teacher of the student's input")
    return "network"


def rehearse(run, student: nn.Module, losses: dict[str, nn.Module], teacher: Teacher | None,
             how: str | None, device: torch.device) -> None:
    """Give every loss numbers of the right shapes once, so that it can refuse them now.

    The networks look at one black picture for the shapes; states and random numbers stay as they
    are. ValueError that names the loss.
    """
    maps = how == "network" or any(hasattr(loss, "tail") for loss in losses.values())
    B = min(run.train.batch_size, ROWS_OF_MAPS if maps else ROWS)
    random = torch.Generator().manual_seed(0)
    seen, known = _noise(student, B, random, device), None
    if how == "network":
        known = _noise(teacher.network, B, random, device)
    elif how == "embeddings":
        known = Output(torch.randn(B, teacher.embedding_size, generator=random).to(device))
    labels = torch.arange(B, device=device)
    pairs = run.sampler and run.sampler.pairs
    grouped = (run.world or run.folder).groups
    targets = Targets(labels // 4 % run.identities, labels % 2 if grouped else None,
                      labels >= B // 2 if pairs else None)
    for name, loss in losses.items():
        loss.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                loss(seen, known, targets)
        except (ValueError, TypeError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"losses.{name}: {said}") from error
        finally:
            loss.train()


def _noise(network: nn.Module, B: int, random: torch.Generator, device: torch.device) -> Output:
    """Random numbers shaped as what the network says of B pictures."""
    S, learning = network.input_size, network.training
    network.eval()
    with torch.no_grad():
        said = network(torch.zeros(1, 3, S, S, device=device))  # one picture; B would take time
    network.train(learning)

    def like(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.randn(B, *x.shape[1:], generator=random).to(device)

    return Output(like(said.embedding), like(said.logits), tuple(map(like, said.features)))
