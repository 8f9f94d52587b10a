"""Reading files that grow: their end, and what is new."""

import json
import math

import numpy as np
import pytest

from kdlab.cache import write_atomic
from kdlab.train import follow
from kdlab.train.follow import Follow, last_rows, tail


def row(step: int, **more) -> str:
    return json.dumps({"step": step, "epoch": 1, "loss": 1 / step, **more}) + "\n"


@pytest.mark.parametrize("block", [1, 7, 65_536])
def test_the_tail_is_read_from_the_end(tmp_path, monkeypatch, block):
    monkeypatch.setattr(follow, "BLOCK", block)
    lines = [f"line {i} é" for i in range(50)]
    (tmp_path / "a").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for n in (1, 3, 50, 99):
        assert tail(tmp_path / "a", n) == lines[-n:]
    assert tail(tmp_path / "a", 0) == tail(tmp_path / "nowhere", 3) == []


def test_a_half_written_row_waits(tmp_path):
    (tmp_path / "log").write_text(row(1) + row(2) + row(3)[:9])
    assert [r["step"] for r in last_rows(tmp_path / "log", 5)] == [1, 2]
    assert [r["step"] for r in last_rows(tmp_path / "log", 1)] == [2]
    assert last_rows(tmp_path / "nowhere", 5) == []


def test_only_what_is_new_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Follow(path)
    assert not log.look() and log.columns == {}
    path.write_text(row(1) + row(2)[:5])
    assert log.look() and log.columns["step"].tolist() == [1]
    place = log.place
    with open(path, "a") as file:
        file.write(row(2)[5:] + row(3, lr=0.1))
    assert log.look() and log.place > place
    assert log.columns["step"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(log.columns["lr"], [math.nan, math.nan, 0.1])
    assert not log.look()


def test_the_same_columns_as_the_whole_log(tmp_path):
    from kdlab.train import History

    path = tmp_path / "log.jsonl"
    fixed = {"lr": 0.1, "images_per_second": 5.0, "data_wait": 0.0, "gradient_norm": 1.0}
    path.write_text(row(1, **fixed) + row(2, **fixed | {"kd/x": None}) + row(3, **fixed))
    log = Follow(path)
    log.look()
    for name, values in History.read(path).columns.items():
        np.testing.assert_array_equal(log.columns[name], values)


def test_a_run_that_goes_on_drops_the_rows_after_its_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(map(row, range(1, 9))))
    log = Follow(path)
    log.look()
    write_atomic(path, row(1) + row(2) + row(3) + row(4, lr=1.0) + row(5) + row(6) + row(7)
                 + row(8) + row(9))
    assert log.look() and log.columns["step"].tolist() == list(range(1, 10))
    path.write_text(row(1))  # cut in place
    assert log.look() and log.columns["step"].tolist() == [1]
    path.unlink()
    assert log.look() and log.columns == {} and not log.look()


def test_a_line_that_is_no_row_is_passed_over(tmp_path):
    (tmp_path / "log").write_text(row(1) + "nonsense\n[1]\n" + row(2, note="words"))
    log = Follow(tmp_path / "log")
    log.look()
    assert log.columns["step"].tolist() == [1, 2] and np.isnan(log.columns["note"]).all()
