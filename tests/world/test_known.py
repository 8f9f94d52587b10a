"""People who differ by their shape alone: the truth that a dimension estimate is held against."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from kdlab.world import NUISANCE, FaceWorld, rendered
from kdlab.world.known import STILL, ShapeWorld


def same(a, b):
    """Equality of factors: numbers, tensors, words and dicts of them."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def likelihood(x):
    """TwoNN's d = n / sum ln mu, literally, in float64."""
    distances, _ = NearestNeighbors(n_neighbors=3).fit(x).kneighbors(x)
    return len(x) / np.log(distances[:, 2] / distances[:, 1]).sum()


def test_all_but_the_shape_is_one_person_s():
    world, model = ShapeWorld(0, 5, like=3), FaceWorld(0, 5).identity(3)
    for i in (0, 3, 11):
        who = world.identity(i)
        assert same(who | {"shape": 0}, model | {"shape": 0})
        assert torch.equal(who["shape"], FaceWorld(0, 5).identity(i)["shape"])
        assert len(who["shape"]) == 5


def test_a_picture_s_factors_are_the_same_of_everybody():
    for nuisance in ({}, NUISANCE):
        world = ShapeWorld(0, 4, **nuisance)
        assert same(world.image(0, 2), world.image(17, 2))
        assert not same(world.image(0, 2), world.image(0, 3))  # another backdrop, other clothes


def test_nothing_varies_that_was_not_asked_for():
    image = ShapeWorld().image(5, 0)
    for name in ("yaw", "pitch", "roll", "glasses", "mask", "noise", "jpeg", "grey", "rim", "blur"):
        assert image[name] == 0, name
    assert image["expression"] == {} and set(STILL) == set(NUISANCE)
    assert image["age"] == ShapeWorld().identity(0)["age"]


def test_one_shape_is_one_picture():
    """With the shapes set equal nothing is left to differ, the camera's grain included."""
    world = ShapeWorld(0, 2, noise=2, light=1, yaw_sd=20)
    shape = world.identity(0)["shape"]
    world.identity(1)["shape"].copy_(shape)
    first, second = world.render([(0, 1), (1, 1)])["arcface"]
    assert torch.equal(first, second)
    other = world.render([(2, 1)])["arcface"][0]
    assert not torch.equal(first, other)


def test_a_picture_is_the_same_alone_and_in_company():
    world = ShapeWorld(0, 3)
    together = world.render([(i, 0) for i in range(4)])["arcface"]
    assert torch.equal(together[2], ShapeWorld(0, 3).render([(2, 0)])["arcface"][0])


def test_its_model_is_the_ordinary_world_s_person():
    """Person `like` looks as in FaceWorld: the short cut over one dressed head changes nothing."""
    world, plain = ShapeWorld(0, 80, like=2), FaceWorld(0, 80, **STILL)
    assert torch.equal(world.render([(2, 0)])["arcface"], plain.render([(2, 0)])["arcface"])


def test_the_key_says_all_that_matters():
    keys = [w.key for w in (ShapeWorld(), ShapeWorld(1), ShapeWorld(0, 3), ShapeWorld(like=1),
                            ShapeWorld(light=1), FaceWorld(0, 8, **STILL))]
    assert len(set(keys)) == len(keys) and ShapeWorld().key == keys[0]


def test_a_set_of_it_is_cached_like_any(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    faces = rendered(ShapeWorld(0, 2), range(3), 1, ("arcface",))
    assert len(faces) == 3 and np.array_equal(faces.labels, [0, 1, 2])
    again = rendered(ShapeWorld(0, 2), range(3), 1, ("arcface",))
    assert again.key == faces.key
    assert np.array_equal(again.crops["arcface"], faces.crops["arcface"])


@pytest.mark.parametrize("d", [1, 2, 4])
def test_its_vertices_have_the_dimension_it_was_given(d):
    world, n = ShapeWorld(0, d), 400
    components = world.head.components[:d].flatten(1).double()
    shapes = torch.stack([world.identity(i)["shape"] for i in range(n)]).double()
    shapes = shapes[(shapes.abs() < 2.5).all(1)]  # cut coefficients coincide where d is 1
    found = likelihood((shapes @ components).numpy())
    assert abs(found / d - 1) < 3 / len(shapes) ** 0.5  # three standard errors, d / sqrt(n)


def test_mistakes_are_refused_in_words():
    with pytest.raises(ValueError, match="dimension must be 1 to 110"):
        ShapeWorld(dimension=0)
    with pytest.raises(ValueError, match="like must be"):
        ShapeWorld(like=-1)
    with pytest.raises(ValueError, match="unknown nuisance"):
        ShapeWorld(yaw=3)
    with pytest.raises(ValueError, match="numbers from 0 on"):
        ShapeWorld().render([])
    with pytest.raises(ValueError, match="crop must be one of"):
        ShapeWorld().render([(0, 0)], ("square",))
