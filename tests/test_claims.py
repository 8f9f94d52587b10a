"""The verdict follows the interval, and the ledger keeps one line a claim."""

import json
import math

import pytest

from kdlab.claims import Claim, ledger, record, verdict


@pytest.mark.parametrize("interval, direction, threshold, word", [
    ((0.1, 0.3), "greater", 0.0, "HELD"),
    ((-0.1, 0.3), "greater", 0.0, "NOT HELD"),  # undecided
    ((0.0, 0.3), "greater", 0.0, "NOT HELD"),  # touches
    ((-0.3, -0.1), "greater", 0.0, "NOT HELD"),  # refuted
    ((0.1, 0.3), "greater", 0.2, "NOT HELD"),
    ((-0.3, -0.1), "less", 0.0, "HELD"),
    ((-0.3, 0.1), "less", 0.0, "NOT HELD"),
    ((-0.01, 0.02), "within", 0.02, "HELD"),
    ((-0.01, 0.03), "within", 0.02, "NOT HELD"),
    ((0.1, 0.2), "within", 0.02, "NOT HELD"),
    ("exact", "greater", 0.0, "HELD"),
    (None, "greater", 0.0, "NOT TESTED"),
    ((-math.inf, 0.3), "greater", 0.0, "NOT TESTED"),
])
def test_verdict_is_read_off_the_interval(interval, direction, threshold, word):
    assert verdict(0.2, interval, direction, threshold)[0] == word


def test_verdict_says_whether_refuted_or_undecided():
    assert verdict(-0.2, (-0.3, -0.1))[1].startswith("refuted")
    assert verdict(0.1, (-0.1, 0.3))[1].startswith("undecided")


def test_no_number_is_not_tested():
    assert verdict(None, (0.1, 0.2))[0] == "NOT TESTED"
    assert verdict(math.nan, (0.1, 0.2))[0] == "NOT TESTED"


@pytest.mark.parametrize("arguments", [
    (0.2, (0.3, 0.1)),
    (0.2, (0.1, 0.3), "better"),
    (0.2, (0.1, 0.3), "within"),
    (0.2, "sure"),
    (0.2, (0.1, 0.2, 0.3)),
    (0.2, (0.1, 0.3), "greater", math.nan),
])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError):
        verdict(*arguments)


def _claim(text="a", notebook="10_x", word="HELD", estimate=0.1):
    return Claim(notebook, text, word, "why", estimate, (0.0, 0.2), "greater", 0.0, "", [0], "live",
                 "cpu")


def test_a_rerun_replaces_its_own_line_only(tmp_path):
    path = tmp_path / "deep" / "claims.json"
    record(_claim("a"), path)
    record(_claim("b"), path)
    record(_claim("a", notebook="20_y"), path)
    record(_claim("a", word="NOT HELD"), path)
    rows = ledger(path)
    assert [(r["notebook"], r["text"]) for r in rows] == [("10_x", "a"), ("10_x", "b"),
                                                          ("20_y", "a")]
    assert [r["verdict"] for r in rows] == ["NOT HELD", "HELD", "HELD"]


def test_the_ledger_is_strict_json_even_for_nan(tmp_path):
    record(_claim(estimate=math.nan), tmp_path / "claims.json")
    rows = json.loads((tmp_path / "claims.json").read_text(), parse_constant=pytest.fail)
    assert rows[0]["estimate"] is None


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', '[{"text": "a"}]'])
def test_a_broken_ledger_is_named_and_kept(tmp_path, content):
    path = tmp_path / "claims.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="claims.json is not a ledger"):
        record(_claim(), path)
    assert path.read_text() == content
