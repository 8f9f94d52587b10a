"""Two processes over gloo: gathered rows, their gradient, and one table of AdaDistill's centres.

This file run as a script is one of the two processes; they start once, for every test below.
"""

import faulthandler
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from kdlab.distributed import broadcast, gather, gather_with_gradient, leave, processes
from kdlab.losses.adadistill import AdaDistill
from kdlab.outputs import Output, Targets

WORLD, B, STEPS, CLASSES = 2, 5, 3, 4
MODES = [(repeated, shared) for repeated in ("last", "sequential") for shared in (True, False)]


def draw(step: int, rank: int):
    """One process's batch: pictures (B, 6), teacher's embeddings (B, 3), labels (B,)."""
    g = torch.Generator().manual_seed(10 * step + rank)
    return (torch.randn(B, 6, generator=g, dtype=torch.float64),
            torch.randn(B, 3, generator=g, dtype=torch.float64),
            torch.randint(CLASSES, (B,), generator=g))


def dealt(parts):
    """One batch: row i of it is row i // WORLD of process i % WORLD."""
    return torch.stack([*parts], 1).flatten(0, 1)


def whole(step: int):
    return tuple(map(dealt, zip(*(draw(step, rank) for rank in range(WORLD)), strict=True)))


def network():
    torch.manual_seed(0)
    return nn.Linear(6, 3).double()


def pair_loss(rows):
    """Of every pair of rows, as a loss that needs the whole batch."""
    return (rows @ rows.T).sin().mean()


def train_pairs(net, batches):
    """The gradient of each step, (STEPS, 3, 6)."""
    grads = []
    for images, _, _ in batches:
        net.zero_grad()
        pair_loss(gather_with_gradient(net(images))).backward()
        grads.append(next(net.parameters()).grad.clone())
    return torch.stack(grads)


def train_adadistill(net, batches, repeated, shared, seed=0):
    """Centres and gradients after STEPS steps of plain descent."""
    torch.manual_seed(seed)
    loss, grads = AdaDistill(3, CLASSES, repeated=repeated, scale=8, shared=shared).double(), []
    for images, teacher, labels in batches:
        net.zero_grad()
        loss(Output(net(images)), Output(teacher), Targets(labels))["softmax"].backward()
        weight = next(net.parameters())
        grads.append(weight.grad.clone())
        with torch.no_grad():
            weight -= 0.1 * weight.grad
    return loss, torch.stack(grads)


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=rank,
                            world_size=WORLD, timeout=timedelta(seconds=60))
    ddp = nn.parallel.DistributedDataParallel
    mine = [draw(step, rank) for step in range(STEPS)]
    images, _, labels = mine[0]
    leaf = images.clone().requires_grad_()
    pair_loss(gather_with_gradient(leaf)).backward()
    out = {"processes": torch.tensor(processes()), "rows": gather(images),
           "labels": gather(labels), "columns": gather(images[:, :4].T),  # not contiguous
           "bf16": gather(images.bfloat16()), "none": gather(images[:0]),
           "with_gradient": gather_with_gradient(leaf), "gradient_of_rows": leaf.grad}
    told = torch.full((3,), float(rank))
    broadcast(told)
    out["told"] = told

    said = {}
    for function in (gather, gather_with_gradient):
        try:
            function(torch.ones(B - rank, 2))
        except ValueError as error:
            said[function.__name__] = str(error)
    out["afterwards"] = gather(torch.tensor([rank]))

    out["pair_gradients"] = train_pairs(ddp(network()), mine)
    for repeated, shared in MODES:
        loss, grads = train_adadistill(ddp(network()), mine, repeated, shared,
                                       seed=rank if shared else 0)  # rank 0's start is everyone's
        out |= {f"{repeated}_{shared}_centres": loss.centres,
                f"{repeated}_{shared}_gradients": grads}
    if rank == 0:  # in eval mode a process asks no other
        x = torch.ones(1, 3, dtype=torch.float64)
        loss.eval()(Output(x), Output(x), Targets(torch.tensor([0])))
    save_file({name: t.detach().contiguous() for name, t in out.items()},
              folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each process computed, [(tensors, messages), ...] in order of rank."""
    folder = tmp_path_factory.mktemp("two")
    running = [subprocess.Popen([sys.executable, "-P", __file__, str(rank), str(folder)],
                                stderr=subprocess.PIPE, text=True) for rank in range(WORLD)]
    try:
        errors = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * WORLD, "\n".join(errors)
    return [(load_file(folder / f"{rank}.safetensors"),
             json.loads((folder / f"{rank}.json").read_text())) for rank in range(WORLD)]


def test_rows_come_in_the_order_of_the_batch_on_every_process(results):
    images, _, labels = whole(0)
    columns = dealt(draw(0, rank)[0][:, :4].T for rank in range(WORLD))
    for tensors, _ in results:
        assert int(tensors["processes"]) == WORLD
        assert torch.equal(tensors["rows"], images)
        assert torch.equal(tensors["with_gradient"], images)
        assert torch.equal(tensors["labels"], labels)
        assert torch.equal(tensors["columns"], columns)
        assert torch.equal(tensors["bf16"], images.bfloat16())
        assert tensors["none"].shape == (0, 6)
        assert tensors["told"].tolist() == [0, 0, 0]


def test_a_gathered_loss_gives_ddp_the_gradient_of_one_process(results):
    """Ours times WORLD for the rows, which DistributedDataParallel's mean takes back."""
    expected = train_pairs(network(), [whole(step) for step in range(STEPS)])
    rows = whole(0)[0].requires_grad_()
    pair_loss(rows).backward()
    for rank, (tensors, _) in enumerate(results):
        torch.testing.assert_close(tensors["pair_gradients"], expected, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(tensors["gradient_of_rows"],
                                   WORLD * rows.grad[rank::WORLD])


def test_unequal_batches_are_refused_on_every_process_and_nobody_hangs(results):
    for tensors, said in results:
        assert set(said) == {"gather", "gather_with_gradient"}
        for message in said.values():
            assert "batches of 4 to 5 rows" in message and "drop_last=True" in message
        assert tensors["afterwards"].tolist() == [0, 1]


@pytest.mark.parametrize("repeated", ["last", "sequential"])
def test_adadistill_has_one_table_that_of_the_merged_batch(results, repeated):
    loss, grads = train_adadistill(network(), [whole(step) for step in range(STEPS)], repeated,
                                   True)
    for tensors, _ in results:
        torch.testing.assert_close(tensors[f"{repeated}_True_centres"], loss.centres,
                                   rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(tensors[f"{repeated}_True_gradients"], grads,
                                   rtol=1e-10, atol=1e-14)
    assert torch.equal(*(tensors[f"{repeated}_True_centres"] for tensors, _ in results))


@pytest.mark.parametrize("repeated", ["last", "sequential"])
def test_private_centres_are_the_released_codes(results, repeated):
    """Each table is fed by its own process's faces alone; the gradient is still DDP's mean."""
    centres = [tensors[f"{repeated}_False_centres"] for tensors, _ in results]
    assert (centres[0] - centres[1]).norm(dim=1).max() > 0.5
    net, losses = network(), []
    for _ in range(WORLD):
        torch.manual_seed(0)
        losses.append(AdaDistill(3, CLASSES, repeated=repeated, scale=8, shared=False).double())
    for step in range(STEPS):
        net.zero_grad()
        for rank, loss in enumerate(losses):
            images, teacher, labels = draw(step, rank)
            term = loss(Output(net(images)), Output(teacher), Targets(labels))["softmax"]
            (term / WORLD).backward()
        with torch.no_grad():
            net.weight -= 0.1 * net.weight.grad
    for rank in range(WORLD):
        torch.testing.assert_close(centres[rank], losses[rank].centres, rtol=1e-10, atol=1e-14)


def test_one_process_gets_back_what_it_gives():
    rows = torch.randn(3, 2, requires_grad=True)
    assert processes() == 1
    assert gather_with_gradient(rows) is rows
    assert torch.equal(gather(rows), rows) and not gather(rows).requires_grad
    told = torch.ones(2)
    broadcast(told)
    assert told.tolist() == [1, 1]


if __name__ == "__main__":
    faulthandler.enable()  # a process that aborts says where
    torch.set_num_threads(1)
    worker(int(sys.argv[1]), Path(sys.argv[2]))
    leave()
