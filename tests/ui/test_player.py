"""The player of an explorer: it runs through the moments, stops when told, and has words."""

import asyncio

import numpy as np
import plotly.graph_objects as go

from kdlab.ui import live

FRAMES = {f"step {k}": {"a": ([k, k + 1], [0, 1])} for k in range(4)}
FACES = np.zeros((2, 3, 24, 24), np.uint8)


def player(monkeypatch):
    monkeypatch.setattr(live, "PACE", 0.001)
    fig = go.Figure(go.Scatter(x=[0, 1], y=[0, 1], mode="markers", name="a", customdata=[0, 1]))
    return live.Explorer(fig, {0: ("a: one", [0]), 1: ("b: one", [1])}, FACES, frames=FRAMES)


def test_it_plays_to_the_end_and_then_from_the_start(monkeypatch):
    async def watch():
        one, seen = player(monkeypatch), []
        one.step.observe(lambda change: seen.append(change["new"]), names="index")
        for _ in range(2):
            one.play.value = True
            await one.playing
        return one, seen

    one, seen = asyncio.run(watch())
    assert seen == [1, 2, 3, 0, 1, 2, 3] and not one.play.value
    assert list(one.figure.data[0].x) == [3, 4]


def test_pressed_again_it_stops(monkeypatch):
    async def watch():
        one = player(monkeypatch)
        one.play.value = True
        one.play.value = False
        await one.playing
        return one.step.index

    assert asyncio.run(watch()) == 0


def test_without_a_page_nothing_runs(monkeypatch):
    one = player(monkeypatch)
    one.play.value = True
    assert not one.play.value and one.step.index == 0
    assert one.play.description == "play"
