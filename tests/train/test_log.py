import json
import math

import numpy as np
import pytest

from kdlab.train import History
from kdlab.train.log import Log


def row(step, **more):
    return {"step": step, "epoch": 1 + step // 3, "lr": 0.1, "loss": 3.0 / step, "arc/ce": 2 / step,
            "kd/mse": 1 / step, "images_per_second": 100.0, "data_wait": 0.01,
            "gradient_norm": 1.0, **more}


def write(path, rows):
    with Log(path) as log:
        for r in rows:
            log.write(r)
    return log.history


def test_columns_hold_each_term_and_the_fixed_names(tmp_path):
    history = write(None, [row(1), row(2), row(3)])
    assert history.terms == ["arc/ce", "kd/mse"] and len(history) == 3
    assert history.columns["step"].tolist() == [1, 2, 3]
    assert history.columns["step"].dtype == np.int64
    np.testing.assert_allclose(history.columns["arc/ce"], [2, 1, 2 / 3])
    assert {"epoch", "lr", "loss", "images_per_second"} <= set(history.columns)


def test_a_log_reads_back_as_it_was(tmp_path):
    rows = [row(1), row(2, **{"kd.threshold": 0.25})]
    history = write(tmp_path / "new" / "log.jsonl", rows)
    again = History.read(tmp_path / "new" / "log.jsonl")
    assert again.rows == history.rows == rows
    assert math.isnan(again.columns["kd.threshold"][0]) and again.columns["kd.threshold"][1] == 0.25


def test_each_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    with Log(tmp_path / "log.jsonl") as log:
        log.write(row(1))
        assert len(History.read(tmp_path / "log.jsonl")) == 1


def test_nan_is_null_in_the_file_and_nan_when_read(tmp_path):
    write(tmp_path / "log.jsonl", [row(1, **{"kd.ratio": math.nan, "kd.top": math.inf})])
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["kd.ratio"] is None and line["kd.top"] is None
    assert math.isnan(History.read(tmp_path / "log.jsonl").rows[0]["kd.ratio"])


def test_a_truncated_last_line_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, [row(1), row(2)])
    whole = path.read_bytes()
    for cut in (1, 5, 40):
        path.write_bytes(whole[:-cut])
        assert len(History.read(path)) == (2 if cut == 1 else 1)


@pytest.mark.parametrize("bad", [
    "{broken}", "[1]", '{"step": 1}', '{"step": 1, "epoch": 1, "loss": "x"}',
    '{"step": 1.5, "epoch": 1, "loss": 1}', '{"step": null, "epoch": 1, "loss": 1}'])
def test_a_corrupt_line_is_named(tmp_path, bad):
    path = tmp_path / "log.jsonl"
    write(path, [row(1)])
    path.write_text(path.read_text() + bad + "\n" + json.dumps(row(2)) + "\n")
    with pytest.raises(ValueError, match=r"log\.jsonl line 2: not a line of a training log"):
        History.read(path)


def test_a_missing_log_is_said_and_an_empty_one_is_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such log"):
        History.read(tmp_path / "log.jsonl")
    (tmp_path / "log.jsonl").touch()
    history = History.read(tmp_path / "log.jsonl")
    assert len(history) == 0 and history.columns == {} and history.terms == []
    assert repr(history) == "History: nothing logged yet" and "epoch" in history.table()


def test_repr_and_table_are_for_people():
    history = write(None, [row(1), row(2), row(3), row(4)])
    assert repr(history).startswith("History: 4 steps, 2 epochs, 100 images/s, loss 3 -> 0.75 (")
    head, first, second = history.table().splitlines()
    assert head.split() == ["epoch", "lr", "loss", "arc/ce", "kd/mse", "images/s"]
    assert first.split() == ["1", "0.1", "2.25", "1.5", "0.75", "100"]
    assert len(head) == len(first) == len(second)
