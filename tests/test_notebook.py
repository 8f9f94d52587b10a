"""start(), show_source(), claim(): what every notebook leans on."""

import json
import os
import random
import re

import numpy as np
import pytest
import safetensors.torch
import torch

import kdlab
from kdlab import notebook
from kdlab.align import similarity
from kdlab.claims import ledger
from kdlab.progress import headless


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "")  # so that what start() sets is undone
    monkeypatch.setattr(notebook, "_current", None)
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def _start(tmp_path, profile="cpu", **knobs):
    return kdlab.start("10_x", profile=profile, out=tmp_path / "out", **knobs)


@pytest.mark.parametrize("profile, hint", [("Smoke", "'smoke'"), ("gppu", "'gpu'"),
                                           ("studie", "'study'")])
def test_a_misspelt_profile_gets_the_nearest_name(tmp_path, profile, hint):
    with pytest.raises(ValueError, match=f"did you mean {hint}"):
        _start(tmp_path, profile)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", 2**32])
def test_a_bad_seed_is_refused(tmp_path, seed):
    with pytest.raises(ValueError, match="SEED is a whole number"):
        kdlab.start("10_x", seed=seed, out=tmp_path)


def test_gpu_without_one_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees none"):
        _start(tmp_path, "gpu")


def test_the_same_seed_repeats_every_stream_bit_for_bit(tmp_path):
    def draw(seed):
        kdlab.start("10_x", seed=seed, out=tmp_path)
        weights = torch.zeros(5)
        weights.index_add_(0, torch.randint(5, (1000,)), torch.randn(1000))
        return random.random(), float(np.random.rand()), weights.tolist()

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_one_line_says_what_runs_where(tmp_path, capsys):
    _start(tmp_path)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    for part in ("10_x", "profile cpu", "600 s", "CPU with", "seed 0", torch.__version__,
                 kdlab.__version__):
        assert part in said


def test_the_budget_is_the_index_s_where_it_says(tmp_path):
    folder = tmp_path / "home" / "notebooks"
    folder.mkdir(parents=True)
    (folder / "index.yml").write_text("10_x: {title: t, minutes: {cpu: 4}, goal: g}\n")
    assert _start(tmp_path).budget == 4
    assert _start(tmp_path, "smoke").budget == 0.5


def test_smoke_is_headless_and_cpu_leaves_it_alone(tmp_path, monkeypatch):
    _start(tmp_path)
    assert os.environ["KDLAB_HEADLESS"] == ""
    _start(tmp_path, "smoke")
    assert os.environ["KDLAB_HEADLESS"] == "1" and headless()


def test_a_zero_keeps_the_widgets_in_smoke(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "0")
    _start(tmp_path, "smoke")
    assert os.environ["KDLAB_HEADLESS"] == "0" and not headless()


def test_without_out_each_notebook_has_a_folder_of_its_own():
    one, other = kdlab.start("10_x", out=""), kdlab.start("20_y")
    assert one.out != other.out and one.out.is_dir() and other.out.is_dir()


def test_pick_and_knobs(tmp_path):
    ctx = _start(tmp_path, "smoke", fpr=0.01)
    assert ctx.knobs == {"fpr": 0.01}
    assert ctx.pick(smoke=1, cpu=2) == 1
    assert _start(tmp_path, "cpu").pick(smoke=1, cpu=2, gpu=3) == 2
    assert _start(tmp_path, "study").pick(smoke=1, cpu=None, gpu=3) is None
    assert _start(tmp_path, "study").pick(smoke=1, cpu=2, study=4) == 4


def test_save_by_suffix(tmp_path):
    ctx = _start(tmp_path)
    assert json.loads(ctx.save("a/b.json", {"x": 1}).read_text()) == {"x": 1}
    assert np.load(ctx.save("x.npy", [1.0, 2.0]), allow_pickle=False).tolist() == [1.0, 2.0]
    saved = safetensors.torch.load_file(ctx.save("w.safetensors", {"w": torch.ones(2, 3).T}))
    assert saved["w"].shape == (3, 2)
    assert ctx.save("note.md", "text").read_text() == "text"
    for name in ("x.pkl", "../x.json", "/tmp/x.json"):
        with pytest.raises(ValueError, match="save"):
            ctx.save(name, {})


def test_a_missing_study_reads_not_tested(tmp_path):
    results = _start(tmp_path).stored("first")
    assert not results and "NOT TESTED" in results.table and "kdlab study first" in str(results)


def test_show_source_names_file_and_line(capsys):
    kdlab.show_source(similarity)
    said = capsys.readouterr().out
    line = similarity.__code__.co_firstlineno
    assert said.startswith(f"# kdlab/align.py, line {line}\ndef similarity(")
    assert "<code>kdlab/align.py" in notebook.Source("kdlab/align.py", "x = 1")._repr_html_()
    # Paper and ink of its own, or a dark theme's ground would lie under inks made for a light one.
    made = notebook.Source("p", "def f(x):\n    return None  # why\n")._repr_html_()
    assert re.search(r"<pre style=\"[^\"]*color: #222222; background: #f8f8f8", made)


@pytest.mark.parametrize("thing", [len, 3, np.add])
def test_show_source_of_what_has_none(thing):
    with pytest.raises(ValueError, match="no Python source"):
        kdlab.show_source(thing)


def test_claim_is_printed_and_kept(tmp_path, capsys):
    ctx = _start(tmp_path)
    made = kdlab.claim("taught is better", 0.2, (0.1, 0.3), seeds=range(3), unit=" TPR")
    said = capsys.readouterr().out
    assert made.verdict == "HELD"
    assert "HELD" in said and "0.2 TPR [0.1, 0.3]" in said and "3 seeds" in said
    kdlab.claim("taught is better", 0.2, (-0.1, 0.3), seeds=range(3))
    rows = ledger(ctx.out / "claims.json")
    assert [(r["verdict"], r["seeds"]) for r in rows] == [("NOT HELD", [0, 1, 2])]


def test_smoke_judges_nothing(tmp_path, capsys):
    _start(tmp_path, "smoke")
    assert kdlab.claim("x", 0.2, (0.1, 0.3)).verdict == "NOT TESTED"
    assert "smoke" in capsys.readouterr().out


def test_a_claim_from_a_study_without_results_is_not_tested(tmp_path):
    made = _start(tmp_path).claim("x", 0.2, (0.1, 0.3), source="first", seeds=[0])
    assert (made.verdict, made.why) == ("NOT TESTED",
                                        "no stored results; run `kdlab study first`")


def test_a_claim_from_an_unfinished_study_says_so(tmp_path):
    folder = tmp_path / "home" / "data" / "results" / "first"
    (folder / "cells").mkdir(parents=True)
    (folder / "plan.json").write_text('{"a": "0", "b": "0"}')
    (folder / "cells" / "a.json").write_text('{"digest": "0", "result": {"tpr": 0.5}}')
    made = _start(tmp_path).claim("x", 0.2, (0.1, 0.3), source="first", seeds=[0])
    assert made.verdict == "HELD" and "1 of the study's cells are NOT TESTED" in made.why
    assert "stored by study first, not computed here" in str(made)


def test_claim_wants_a_started_notebook_and_real_seeds(tmp_path):
    with pytest.raises(ValueError, match="call kdlab.start"):
        kdlab.claim("x", 0.2, (0.1, 0.3))
    with pytest.raises(ValueError, match="list of seeds"):
        _start(tmp_path).claim("x", 0.2, (0.1, 0.3), seeds=3)
