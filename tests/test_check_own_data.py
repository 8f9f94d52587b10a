"""The checks about data and protocols, fed right answers and learners' mistakes."""

import struct

import numpy as np
import pytest
import torch

from kdlab.check import own_data
from kdlab.check.judge import outcome, same
from kdlab.data.records import Records
from kdlab.evaluate import pool, ten_fold
from kdlab.preprocessing import embedded

MAGIC = struct.pack("<I", 0xCED7230A)


def _words(data):
    """(flag, length, place of the payload) of each chunk."""
    at = 0
    while at < len(data):
        word = int.from_bytes(data[at + 4:at + 8], "little")
        yield word >> 29, word % 2**29, at + 8
        at += 8 + -(-(word % 2**29) // 4) * 4


def _payload(data):
    out = b""
    for flag, length, at in _words(data):
        out += (MAGIC if flag > 1 else b"") + data[at:at + length]
    return out


def _input(picture, contract):
    order = [2, 1, 0] if contract["channels"] == "BGR" else [0, 1, 2]
    divide = contract["divide"] if isinstance(contract["divide"], list) else [
        contract["divide"]] * 3
    return np.stack([(picture[c].astype(np.float32) - contract["mean"][c]) / divide[c]
                     for c in order])


def _accuracy(distance, is_same, fold, grid):
    fold, best, at = set(np.asarray(fold).tolist()), -1, None
    for t in grid:
        hits = sum((d < t) == s for k, (d, s) in enumerate(zip(distance, is_same, strict=True))
                   if k not in fold)
        if hits > best:
            best, at = hits, t
    return sum((distance[k] < at) == is_same[k] for k in fold) / len(fold)


def _template(e, media):
    whole = np.zeros(e.shape[1])
    for m in set(media.tolist()):
        whole += np.mean([row for row, own in zip(e, media, strict=True) if own == m], 0)
    return whole / np.sqrt(whole @ whole)


RIGHT = {"record_payload": _payload, "network_input": _input, "held_out_accuracy": _accuracy,
         "template_of": _template}

PAYLOAD_WRONG = {
    "the flag is not looked at": lambda d: next(d[at:at + n] for _, n, at in _words(d)),
    "is not back": lambda d: b"".join(d[at:at + n] for _, n, at in _words(d)),
    "not behind each": lambda d: _payload(d) + (MAGIC if len(list(_words(d))) > 1 else b""),
    "the length says where": lambda d: d[8:],
    "its upper three bits are the flag": lambda d: d[8:8 + int.from_bytes(d[4:8], "little")],
    "magic and lengths included": lambda d: d,
    "not of the kind": lambda d: {"payload": _payload(d)},
}


def _numbers(contract):
    return (np.asarray(contract["mean"], float)[:, None, None],
            np.broadcast_to(contract["divide"], 3)[:, None, None].astype(float))


def _turn(x, contract):
    return x[[2, 1, 0]] if contract["channels"] == "BGR" else x


def _plain(x, contract):
    mean, divide = _numbers(contract)
    return (x - mean) / divide


INPUT_WRONG = {
    "the channels are not looked at": _plain,
    "whatever the contract says": lambda x, c: _plain(x, c)[::-1],
    "turned too early": lambda x, c: _plain(_turn(x, c), c),
    "that is its mirror": lambda x, c: (
        np.flip(_plain(x, c), -1) if c["channels"] == "BGR" else _plain(x, c)),
    "divided first": lambda x, c: _turn(x / _numbers(c)[1] - _numbers(c)[0], c),
    "the mean is not subtracted": lambda x, c: _turn(x / _numbers(c)[1], c),
    "nothing is divided": lambda x, c: _turn(x - _numbers(c)[0], c),
    "no numbers below 0": lambda x, c: _turn(
        (x - _numbers(c)[0].astype(np.uint8)) / _numbers(c)[1], c),
    "one contract's scaling": lambda x, c: _turn((x.astype(float) - 127.5) / 127.5, c),
    "the shape is": lambda x, c: _input(x, c).transpose(1, 2, 0),
}


def _chosen(distance, is_same, fold, grid, on, of, below=np.less, first=True):
    everybody = np.arange(len(is_same))
    rows = {"fold": fold, "others": np.delete(everybody, fold), "all": everybody}
    right = np.array([below(distance, t) == is_same for t in grid])
    hits = right[:, rows[on]].sum(1)
    best = np.flatnonzero(hits == hits.max())[0 if first else -1]
    return right[best, rows[of]].mean()


FOLD_WRONG = {
    "leave them out": lambda *a: _chosen(*a, "all", "fold"),
    "the best that it could ever be": lambda *a: _chosen(*a, "fold", "fold"),
    "where the threshold was chosen; tell": lambda *a: _chosen(*a, "others", "others"),
    "the accuracy of all pairs": lambda *a: _chosen(*a, "others", "all"),
    "strictly below": lambda *a: _chosen(*a, "others", "fold", np.less_equal),
    "not the last": lambda *a: _chosen(*a, "others", "fold", first=False),
    "not similarities": lambda d, s, f, g: _chosen(-d, s, f, -g[::-1], "others", "fold"),
}


def _lengths(x):
    return np.sqrt((x**2).sum(-1, keepdims=True))


def _media(e, media, of=lambda x: x):
    return np.sum([of(e[media == m].mean(0)) for m in set(media.tolist())], 0)


TEMPLATE_WRONG = {
    "outweighs every photograph": lambda e, m: e.sum(0) / _lengths(e.sum(0)),
    "the whole was not": lambda e, m: (e / _lengths(e)).mean(0),
    "here a norm acts as a weight": lambda e, m: _template(e / _lengths(e), m),
    "before the sum": lambda e, m: (
        lambda z: z / _lengths(z))(_media(e, m, lambda x: x / _lengths(x))),
    "is not 1 yet": _media,
    "and its length is not 1": lambda e, m: e.mean(0),
    "the first picture alone": lambda e, m: e[0] / _lengths(e[0]),
}

WRONG = {"record_payload": PAYLOAD_WRONG, "network_input": INPUT_WRONG,
         "held_out_accuracy": FOLD_WRONG, "template_of": TEMPLATE_WRONG}
REFERENCE = {"record_payload": own_data._payload, "network_input": own_data._network_input,
             "held_out_accuracy": own_data._held_out, "template_of": own_data._template}


def test_every_exercise_is_tested():
    own = {name for name, thing in vars(own_data).items()
           if not name.startswith("_") and getattr(thing, "__module__", "") == own_data.__name__}
    assert own == set(RIGHT) == set(WRONG) == set(REFERENCE)


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    assert getattr(own_data, exercise)(RIGHT[exercise]) is RIGHT[exercise]
    assert f"{exercise}: right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("empty", [_raises, lambda *_: None, lambda *_: ..., ..., None])
@pytest.mark.parametrize("exercise", RIGHT)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    assert getattr(own_data, exercise)(empty) is REFERENCE[exercise]
    assert "not done yet" in capsys.readouterr().out


@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in WRONG for hint, wrong in WRONG[exercise].items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(own_data, exercise)(wrong) is REFERENCE[exercise]
    said = capsys.readouterr().out
    assert hint in said.partition("Hint: ")[2] and "expected: " in said


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(own_data, "judge", lambda *args: seen.append(args))
    getattr(own_data, exercise)(None)
    cases, mistakes = seen[0][3], seen[0][4]
    compare = seen[0][5][1] if len(seen[0]) > 5 else None
    answers = [[outcome(fn, args, compare) for _, args in cases] for fn, _ in mistakes]
    answers.append([outcome(REFERENCE[exercise], args, compare) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_a_payload_is_what_the_library_reads(tmp_path):
    parts = struct.pack("<IfQQ", 0, 3, 7, 0) + b"ab", b"cdef", b"g"
    data = own_data._file(*parts)
    path = tmp_path / "one.rec"
    path.write_bytes(data)
    _, picture = Records(path).picture(0, 7)
    assert own_data._payload(data) == MAGIC.join(parts)
    assert picture == own_data._payload(data)[24:]


@pytest.mark.parametrize("case", range(5))
def test_the_input_is_the_clinics(case):
    picture, contract = own_data._input_cases()[case][1]
    got = []

    class Network:
        def __call__(self, x):
            got.append(x)
            raise StopIteration

    with pytest.raises(StopIteration):
        embedded(Network(), torch.from_numpy(picture)[None], contract)
    np.testing.assert_allclose(own_data._network_input(picture, contract), got[0][0], rtol=1e-5)


def test_a_fold_is_ten_folds_own():
    random = np.random.default_rng(3)
    x = random.normal(size=(120, 5))
    x[1::2][:30] = x[::2][:30] + 0.8 * x[1::2][:30]
    is_same = np.arange(60) < 30
    order = random.permutation(60)
    x, is_same = x.reshape(60, 2, 5)[order].reshape(120, 5), is_same[order]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = np.square(unit[::2] - unit[1::2]).sum(1)
    folds = [own_data._held_out(distance, is_same, part, own_data.GRID)
             for part in np.array_split(np.arange(60), 10)]
    np.testing.assert_allclose(folds, ten_fold(x, is_same).folds)


def test_a_template_is_the_librarys():
    random = np.random.default_rng(5)
    e, media = random.normal(size=(9, 4)), random.integers(0, 3, 9)
    pooled, _ = pool(e, np.zeros(9, int), media, norm=True)
    np.testing.assert_allclose(own_data._template(e, media), pooled[0], rtol=1e-6)
