"""The checks about training runs, fed right answers and learners' mistakes."""

import math

import numpy as np
import pytest

from kdlab.check import training
from kdlab.check.judge import outcome, same
from kdlab.data import Batches
from kdlab.train import TrainConfig
from kdlab.train.optimizer import lr_factor
from kdlab.train.scale import NVLINK, REACHED, scale


def _undeal(parts):
    return np.array([row for turn in zip(*parts, strict=True) for row in turn])


def _rate(step, steps, lr, lr_batch, batch_size, warm):
    peak = lr / lr_batch * batch_size
    return min(peak * (step + 1) / max(warm, 1) if step < warm else math.inf,
               peak * (steps - step) / (steps - warm) if step >= warm else math.inf)


def _ring(parameters, gpus):
    return 8 * parameters - 8 * parameters / gpus


def _safe(steps):
    text = " ".join(steps)
    return text in ("write fsync rename", "write fsync rename delete")


RIGHT = {"undeal": _undeal, "learning_rate": _rate, "ring_bytes": _ring, "safe_order": _safe}

UNDEAL_WRONG = {
    "process after process: row 1": lambda p: np.concatenate(p),
    "the last one first": lambda p: np.concatenate(p[::-1]),
    "one axis too many": lambda p: np.stack(p, axis=1),
    "one block a process": lambda p: np.array(p),
    "process 0 holds the first": lambda p: _undeal(p[::-1]),
    "sorting finds": lambda p: np.sort(np.concatenate(p), 0),
    "the shape is": lambda p: p[0],
}


def _warmed(step, warm):
    return (step + 1) / warm


RATE_WRONG = {
    "upside down": lambda s, n, lr, ref, b, w: _rate(s, n, lr, b, ref, w),
    "the batch is not looked at": lambda s, n, lr, ref, b, w: _rate(s, n, lr, 1, 1, w),
    "the root is another rule": lambda s, n, lr, ref, b, w: _rate(s, n, lr, ref**.5, b**.5, w),
    "one step late": lambda s, n, lr, ref, b, w: (
        lr * b / ref * s / w if s < w else _rate(s, n, lr, ref, b, w)),
    "begins at step 0": lambda s, n, lr, ref, b, w: lr * b / ref * (
        _warmed(s, w) if s < w else 1 - s / n),
    "steps - warm steps": lambda s, n, lr, ref, b, w: lr * b / ref * (
        _warmed(s, w) if s < w else 1 - (s - w) / n),
    "there is no warm-up": lambda s, n, lr, ref, b, w: lr * b / ref * (
        1 if s < w else (n - s) / (n - w)),
    "stays at the peak": lambda s, n, lr, ref, b, w: lr * b / ref * (_warmed(s, w) if s < w else 1),
    "only the warm-up knows": lambda s, n, lr, ref, b, w: _rate(s, n, lr, ref, b if s < w else ref,
                                                               w),
    "it stops with ZeroDivisionError": lambda s, n, lr, ref, b, w: lr * b / ref * min(
        (s + 1) / w, (n - s) / (n - w)),
}

RING_WRONG = {
    "goes round twice": lambda p, w: 4 * p * (1 - 1 / w),
    "all GPUs send together": lambda p, w: 8 * p * (w - 1),
    "everybody sending all": lambda p, w: 4 * p * (w - 1),
    "the limit of many": lambda p, w: 8 * p if w > 1 else 0,
    "nobody to send to": lambda p, w: 8 * p,
    "not bytes": lambda p, w: 2 * p * (w - 1) / w,
    "those are bits": lambda p, w: 64 * p * (w - 1) / w,
    "that is one gradient": lambda p, w: 4 * p,
    "work the first test out": lambda p, w: 8 * p * w / (w + 1),
}


def _places(steps):
    return {name: place for place, name in enumerate(steps)}


def _late_delete(steps):
    at = _places(steps)
    return "rename" in at and at.get("delete", 9) > at["rename"]


ORDER_WRONG = {
    "fsync is not asked for": lambda s: (
        _late_delete(s) and "write" in s and s.index("write") < s.index("rename")),
    "delete is not looked at": lambda s: (
        [x for x in s if x != "delete"] == ["write", "fsync", "rename"]),
    "nothing needs to be deleted": lambda s: " ".join(s) == "write fsync rename delete",
    "its place counts too": lambda s: (
        _late_delete(s) and "fsync" in s and s.index("write") < s.index("rename")),
    "an fsync before the write": lambda s: (
        _late_delete(s) and s.index("rename") > _places(s).get("fsync", 9)),
    "their order is not looked at": lambda s: {"write", "fsync", "rename"}.issubset(s),
    "fsync alone is not enough": lambda s: "fsync" in s,
    "are exchanged": lambda s: not _safe(s),
    "the power going off": lambda s: True,
    "nobody finds the new file": lambda s: "fsync" in s and s.index("write") < s.index("fsync"),
}

WRONG = {"undeal": UNDEAL_WRONG, "learning_rate": RATE_WRONG, "ring_bytes": RING_WRONG,
         "safe_order": ORDER_WRONG}


def _reference(exercise):
    return getattr(training, f"_{exercise}")


def test_every_exercise_is_tested():
    own = {name for name, thing in vars(training).items()
           if not name.startswith("_") and getattr(thing, "__module__", "") == training.__name__}
    assert own == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    assert getattr(training, exercise)(RIGHT[exercise]) is RIGHT[exercise]
    assert f"{exercise}: right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("empty", [_raises, lambda *_: None, lambda *_: ..., ..., None])
@pytest.mark.parametrize("exercise", RIGHT)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    assert getattr(training, exercise)(empty) is _reference(exercise)
    assert "not done yet" in capsys.readouterr().out


@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in WRONG for hint, wrong in WRONG[exercise].items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(training, exercise)(wrong) is _reference(exercise)
    said = capsys.readouterr().out
    assert hint in said.partition("Hint: ")[2] and "expected: " in said


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(training, "judge", lambda *args: seen.append(args))
    getattr(training, exercise)(None)
    cases, mistakes = seen[0][3], seen[0][4]
    answers = [[outcome(fn, args) for _, args in cases] for fn, _ in mistakes]
    answers.append([outcome(_reference(exercise), args) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_undeal_is_how_batches_are_dealt():
    import torch

    pixels = torch.zeros(24, 3, 4, 4, dtype=torch.uint8)
    labels = np.arange(24) % 5

    def rows(**share):
        return next(iter(Batches(pixels, labels, 12, **share).epoch(0))).index.numpy()

    dealt = [rows(rank=r, world=4) for r in range(4)]
    np.testing.assert_array_equal(training._undeal(dealt), rows())


@pytest.mark.parametrize("step", [0, 4, 9, 10, 57, 99])
def test_the_rate_is_the_trainers(step):
    config = TrainConfig(lr=0.1, lr_batch=512, batch_size=1024, schedule="poly", warmup=0.1)
    assert training._learning_rate(step, 100, 0.1, 512, 1024, 10) == pytest.approx(
        config.lr * config.lr_scale * lr_factor(config, step, 100))


def test_the_ring_is_the_models():
    rows = scale(1e-9, 8, 10**6, 1, gpus=[8])  # so fast that nothing of the exchange is covered
    assert training._ring_bytes(10**6, 8) == pytest.approx(
        rows[0]["exchange_seconds"] * REACHED * NVLINK, rel=1e-3)
