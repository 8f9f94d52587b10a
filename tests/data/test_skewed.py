"""Sets with a skew: grey by Pillow, equal test cells, and the released rule as a slow loop."""

import numpy as np
import pytest
from PIL import Image

from kdlab.data.shapes import SHAPES, shapes
from kdlab.data.skewed import COLOUR, GREY, grey, in_both, skewed


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def test_grey_is_pillows_to_the_last_bit():
    some = pictures(40)
    made = grey(some)
    for before, after in zip(some, made, strict=True):
        pillow = np.asarray(Image.fromarray(before.transpose(1, 2, 0)).convert("L"))
        assert (after == pillow).all()
    assert (grey(made) == made).all()
    truncated = (np.array([0.299, 0.587, 0.114])[:, None, None] * some).sum(1).astype(np.uint8)
    assert 0.3 < (truncated != made[:, 0]).mean() < 0.7  # the trap this avoids


@pytest.mark.parametrize("skew", [0.8, 0.5, 1.0, 0.0])
def test_the_released_rule_as_a_slow_loop(skew):
    """Shuffled by numpy's old generator; of each class the first so many become grey."""
    labels = np.arange(200) % 10
    made = skewed(pictures(200), labels, seed=3, skew=skew)
    np.random.seed(3)
    order = np.arange(200)
    np.random.shuffle(order)
    seen, expected = [0] * 10, np.zeros(200, int)
    for i in order:
        share = skew if labels[i] < 5 else 1 - skew
        expected[i] = GREY if seen[labels[i]] < round(share * 20) else COLOUR
        seen[labels[i]] += 1
    assert (made.groups == expected).all() and (made.labels == labels).all()
    for before, after, group in zip(pictures(200), made.pixels, made.groups, strict=True):
        assert (after == (grey(before[None])[0] if group == GREY else before)).all()


def test_cifar_10s_has_its_numbers():
    """50,000 pictures: 4,000 grey of each of the first five classes, 1,000 of each other."""
    labels = np.random.default_rng(1).permutation(np.arange(50_000) % 10)
    made = skewed(np.zeros((50_000, 3, 1, 1), np.uint8), labels)
    counts = np.bincount(2 * labels + made.groups).reshape(10, 2)
    assert counts.tolist() == [[4000, 1000]] * 5 + [[1000, 4000]] * 5
    other = skewed(np.zeros((50_000, 3, 1, 1), np.uint8), labels, seed=1)
    assert (other.groups != made.groups).any()  # another run, another pattern


def test_a_test_set_shows_each_picture_twice():
    some, labels = pictures(20), np.arange(20) % 10
    made = in_both(some, labels)
    assert np.bincount(2 * made.labels + made.groups).tolist() == [2] * 20
    assert (made.pixels[:20] == grey(some)).all() and (made.pixels[20:] == some).all()


@pytest.mark.parametrize("wrong, said", [
    ({"skew": 1.2}, "0 to 1"), ({"labels": np.zeros(9, int)}, "as many labels"),
    ({"labels": np.arange(10) % 5}, "cannot be halved"),
    ({"labels": np.arange(10) - 1}, "labels from 0")])
def test_what_cannot_be_skewed(wrong, said):
    given = {"pixels": pictures(10), "labels": np.arange(10)} | wrong
    with pytest.raises(ValueError, match=said):
        skewed(**given)


def test_shapes_repeat_and_take_turns():
    pixels, labels = shapes(25, seed=4)
    assert pixels.shape == (25, 3, 16, 16) and np.bincount(labels).tolist() == [3] * 5 + [2] * 5
    assert (shapes(12, seed=4)[0] == pixels[:12]).all()
    assert (shapes(12, seed=5)[0] != pixels[:12]).any()


def test_a_tint_says_nothing_of_the_shape():
    """Without noise a picture is one brightness pattern, shifted: channels differ by a constant."""
    pixels, _ = shapes(200, seed=0, noise=0)
    inner = pixels[((pixels > 0) & (pixels < 255)).all((1, 2, 3))].astype(int)
    assert len(inner) > 50
    for low, high in ((0, 1), (1, 2)):
        gap = inner[:, low] - inner[:, high]
        assert (np.ptp(gap, axis=(1, 2)) <= 1).all()  # rounding


def test_every_shape_is_another():
    """Averages of many pictures of a class, in both halves of a draw, are nearest to their own."""
    pixels, labels = shapes(2000, seed=0, noise=0)
    flat = pixels.mean(1).reshape(2000, -1)
    first, second = (np.stack([flat[part][labels[part] == c].mean(0) for c in range(len(SHAPES))])
                     for part in (slice(0, 1000), slice(1000, 2000)))
    apart = ((first[:, None] - second) ** 2).sum(2)
    assert (apart.argmin(1) == np.arange(len(SHAPES))).all()


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 4}, {"seed": -1}, {"noise": -1.0}])
def test_what_is_no_set_of_shapes(wrong):
    with pytest.raises(ValueError, match="shapes wants"):
        shapes(**{"count": 3, "seed": 0} | wrong)
