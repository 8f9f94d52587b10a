"""Who a face is, and what differs between two of its pictures."""

import json
import math

import pytest
import torch
from scipy.stats import binom, chi2

from kdlab.world import NUISANCE, FaceWorld
from kdlab.world.hair import STYLES as DRAWN
from kdlab.world.head import load_head
from kdlab.world.identity import (
    GROUPS,
    STYLES,
    age_weights,
    build_shape,
    draw_identity,
    generator,
)
from kdlab.world.nuisance import MEANING, OLDEST, RANGES, YOUNGEST, draw_image, rotation

STILL = dict.fromkeys(("yaw_sd", "pitch_sd", "roll_sd", "expression", "light", "noise", "grey"), 0)
SOMEBODY = {"age": 40.0, "glasses": 0.5}


@pytest.fixture(scope="module")
def crowd():
    return [draw_identity(0, i, 80) for i in range(600)]


def same(a, b):
    """Equality of factors: numbers, tensors and dicts of them."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_key_has_one_stream_of_its_own():
    first = torch.rand(4, generator=generator(0, 1, 2))
    assert torch.equal(first, torch.rand(4, generator=generator(0, 1, 2)))
    for other in ((0, 2, 1), (0, 1, 3), (1, 1, 2), (0, 1)):
        assert not torch.equal(first, torch.rand(4, generator=generator(*other)))


def test_an_identity_is_a_function_of_seed_and_number():
    assert same(draw_identity(0, 5, 80), draw_identity(0, 5, 80))
    assert not same(draw_identity(0, 5, 80), draw_identity(1, 5, 80))
    assert not same(draw_identity(0, 5, 80), draw_identity(0, 6, 80))


def test_a_person_is_a_function_of_seed_and_number():
    worlds = FaceWorld(0), FaceWorld(0, yaw_sd=3.0), FaceWorld(1)
    first, again, other = (world.person(7) for world in worlds)
    for part in ("shape", "atlas", "patch"):
        assert torch.equal(getattr(first, part), getattr(again, part))
        assert not torch.equal(getattr(first, part), getattr(other, part))


@pytest.mark.parametrize("dimension", [1, 5, 110])
def test_shape_spans_exactly_the_identity_dimension(dimension):
    head = load_head()
    used = head.faces.unique()
    rest = []
    for i in range(130 if dimension == 110 else 12):
        person = draw_identity(0, i, dimension)
        assert len(person["shape"]) == dimension
        shape = build_shape(head, person).double() - head.mean
        for name, value in (("female", person["female"] - 0.5),
                            ("muscle", person["muscle"]), ("weight", person["weight"]),
                            ("african", person["ancestry"][0] - 1 / 3),
                            ("asian", person["ancestry"][1] - 1 / 3)):
            shape = shape - float(value) * head.directions[name].double()
        rest.append(shape[used].reshape(-1))
    rest = torch.stack(rest)
    singular = torch.linalg.svdvals(rest)
    noise = 1e-6  # metres: float32 sums over 3,867 vertices
    assert singular[dimension - 1] > 10 * noise
    assert (singular[dimension:] < noise * rest.shape[1] ** 0.5).all()
    basis = torch.linalg.qr(head.components[:dimension, used].double().reshape(dimension, -1).T)[0]
    assert (rest - rest @ basis @ basis.T).abs().max() < noise


def test_groups_and_sexes_are_balanced(crowd):
    # Exact binomial bounds that a fair draw leaves once in a million.
    for group in range(len(GROUPS)):
        low, high = binom.interval(1 - 1e-6, len(crowd), 1 / 3)
        assert low <= sum(person["group"] == group for person in crowd) <= high
    low, high = binom.interval(1 - 1e-6, len(crowd), 1 / 2)
    assert low <= sum(person["female"] for person in crowd) <= high


def test_factors_are_in_range(crowd):
    for person in crowd:
        assert person["group"] == int(person["ancestry"].argmax())
        assert abs(float(person["ancestry"].sum()) - 1) < 1e-5 and (person["ancestry"] > 0).all()
        assert person["shape"].abs().max() <= 2.5
        for name in ("hair", "iris", "lip"):
            assert 0 < person[name].min() and person[name].max() <= 1
        assert 0.1 < person["skin"].min() and person["skin"].max() < 1.2  # clamped when painted
        for name in ("beard", "moustache", "makeup", "volume", "curl", "length",
                     "greying", "dyed", "glasses"):
            assert 0 <= person[name] <= 1
        assert 18 <= person["age"] <= 75 and person["style"] in STYLES
        if person["female"]:
            assert not person["beard"] and not person["moustache"]
            assert person["style"] != "bald_sides"


def test_skin_follows_ancestry(crowd):
    mean = [torch.stack([p["skin"] for p in crowd if p["group"] == g]).mean() for g in range(3)]
    assert mean[0] < mean[1] - 0.1 and mean[0] < mean[2] - 0.1


def test_dimension_out_of_range_is_refused():
    for dimension in (0, 111):
        with pytest.raises(ValueError, match=f"1 to 110, not {dimension}"):
            FaceWorld(dimension=dimension)


def test_every_style_that_is_worn_can_be_drawn(crowd):
    assert set(STYLES) == set(DRAWN) == {person["style"] for person in crowd}


def test_people_are_as_old_as_the_population():
    ages = [draw_identity(0, i, 80, (6, 12))["age"] for i in range(50)]
    assert 6 <= min(ages) < 8 and 10 < max(ages) <= 12
    with pytest.raises(ValueError, match=r"ages must rise from 4 or more to 90 or less"):
        FaceWorld(ages=(0, 20))
    with pytest.raises(ValueError, match=r"ages must rise"):
        FaceWorld(ages=(30, 20))


def test_a_child_and_an_old_head_meet_at_25_years():
    assert age_weights(10) == (1.0, 0.0) and age_weights(25) == (0.0, 0.0)
    assert age_weights(90) == (0.0, 1.0) and age_weights(4)[0] == 1.2
    child, old = zip(*(age_weights(a) for a in range(4, 90)), strict=True)
    assert list(child) == sorted(child, reverse=True) and list(old) == sorted(old)


@pytest.mark.parametrize("wrong, words", [
    ({"seed": -1}, "seed must be a whole number from 0 on, not -1"),
    ({"seed": 1.5}, "seed must be"), ({"dimension": 3.5}, "dimension must be 1 to 110, not 3.5")])
def test_a_wrong_seed_or_dimension_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        FaceWorld(**wrong)


def test_children_neither_shave_nor_lose_hair():
    for i in range(300):
        child = draw_identity(0, i, 80, (5, 14))
        assert child["style"] != "bald_sides" and child["recession"] == child["makeup"] == 0


def test_equal_worlds_have_equal_keys():
    assert FaceWorld(0).key == FaceWorld(0, yaw_sd=20, ages=(18.0, 75)).key


def test_what_describe_hands_out_is_the_caller_s():
    world = FaceWorld(0)
    told = world.describe(3, 0)
    told["identity"]["age"] = told["image"]["yaw"] = 99.0
    assert same(world.describe(3, 0), FaceWorld(0).describe(3, 0))


def test_unknown_nuisance_is_named():
    with pytest.raises(ValueError, match="unknown nuisance yaw; there are yaw_sd, pitch_sd"):
        FaceWorld(yaw=3)


@pytest.mark.parametrize("name", list(NUISANCE))
def test_a_nuisance_outside_its_range_is_named(name):
    low, high = RANGES[name]
    assert low <= NUISANCE[name] <= high and MEANING[name]
    for value in (low - 0.01, high + 0.01, float("nan"), "much"):
        with pytest.raises(ValueError, match=rf"nuisance {name} .* between {low} and {high}, not"):
            FaceWorld(**{name: value})
    FaceWorld(**{name: low}), FaceWorld(**{name: high})


@pytest.mark.parametrize("bias, words", [
    ({"group": "martian"}, "one of african, asian, caucasian, not 'martian'"),
    ({"noise": 0.1}, "not None"),
    ({"group": "asian", "haste": 1}, "unknown bias haste; there are noise, contrast, images"),
    ({"group": "asian", "noise": 0.6}, "bias noise must lie between 0.0 and 0.5, not 0.6"),
    ({"group": "asian", "images": 0.0}, "bias images must lie between 0.05 and 1.0, not 0.0")])
def test_a_wrong_bias_is_explained(bias, words):
    with pytest.raises(ValueError, match=words):
        FaceWorld(bias=bias)


def test_a_bias_falls_on_its_group_alone(crowd):
    fair = FaceWorld(0)
    unfair = FaceWorld(0, bias={"group": "african", "noise": 0.1, "contrast": 0.5, "images": 0.5})
    assert fair.key != unfair.key
    for i in range(30):
        plain, other = fair.image(i, 3), unfair.image(i, 3)
        if GROUPS[crowd[i]["group"]] == "african":
            assert other["noise"] == pytest.approx(plain["noise"] + 0.1)
            assert other["contrast"] == 0.5 and unfair.images_of(i, 8) == 4
            plain |= {"noise": other["noise"], "contrast": 0.5}
        else:
            assert unfair.images_of(i, 8) == 8
        assert same(plain, other) and fair.images_of(i, 8) == 8
        assert unfair.images_of(i, 1) == 1  # nobody disappears


def test_describe_tells_both_halves():
    world = FaceWorld(3, dimension=7)
    both = world.describe(4, 5)
    assert same(both["identity"], world.identity(4)) and same(both["image"], world.image(4, 5))
    assert len(both["identity"]["shape"]) == 7


def test_an_image_is_a_function_of_seed_identity_and_number():
    first = draw_image(0, 1, 2, NUISANCE, SOMEBODY)
    assert same(first, draw_image(0, 1, 2, NUISANCE, SOMEBODY))
    for other in ((1, 1, 2), (0, 2, 1), (0, 1, 3)):
        assert not same(first, draw_image(*other, NUISANCE, SOMEBODY))


def test_angles_have_the_stated_spread():
    count = 1000
    images = [draw_image(0, i, 0, NUISANCE, SOMEBODY) for i in range(count)]
    # The sd of a standard normal clamped at 2.5 is 0.991. 1e-6 of each side of its chi square;
    # a clamped normal has lighter tails than that asks for.
    low, high = (math.sqrt(chi2.ppf(q, count - 1) / (count - 1)) for q in (1e-6, 1 - 1e-6))
    for name in ("yaw", "pitch", "roll"):
        degrees = torch.tensor([math.degrees(image[name]) for image in images])
        sd = 0.991 * NUISANCE[f"{name}_sd"]
        assert low * sd < degrees.std() < high * sd
        assert abs(degrees.mean()) < 5 * sd / count**0.5
        assert degrees.abs().max() <= 2.5 * NUISANCE[f"{name}_sd"] + 1e-4


def test_half_the_spread_halves_every_angle():
    a, b = (draw_image(0, 1, 2, NUISANCE | {"yaw_sd": sd}, SOMEBODY) for sd in (20.0, 10.0))
    assert b["yaw"] == pytest.approx(a["yaw"] / 2)
    assert same({**a, "yaw": 0}, {**b, "yaw": 0})  # and touches nothing else


def test_no_nuisance_is_a_frontal_neutral_face():
    for j in range(5):
        image = draw_image(0, 1, j, NUISANCE | STILL, SOMEBODY)
        assert image["yaw"] == image["pitch"] == image["roll"] == 0
        assert image["expression"] == {} and image["noise"] == image["grey"] == image["fill"] == 0
        assert image["exposure"] == image["gamma"] == 1 and image["warmth"] == 0
        assert image["light"][0] == 0 and image["light"][1] < -0.9  # before the face, a bit above


def test_still_light_changes_nothing_but_light():
    a, b = (draw_image(0, 1, 2, NUISANCE | {"light": light}, SOMEBODY) for light in (1.0, 0.0))
    for name in ("background", "backdrop", "cloth", "blur", "noise", "grey"):
        assert same(a[name], b[name]), name


def test_factors_of_an_image_are_in_range():
    head = load_head()
    for i in range(200):
        image = draw_image(0, i, 0, NUISANCE, SOMEBODY)
        assert set(image["expression"]) <= set(head.expressions)
        assert all(0 < strength <= 1 for strength in image["expression"].values())
        assert abs(image["light"].norm() - 1) < 1e-5 and image["light"][1] < 0
        assert 0.6 <= image["distance"] <= 1.8  # metres
        assert image["grey"] in (0.0, 1.0) and image["blur"] > 0 and image["noise"] > 0
        assert image["mask"] == 0 and image["age"] == 40 and image["glasses"] in (0.0, 1.0)
        assert image["jpeg"] == 0 or 30 <= image["jpeg"] <= 90


@pytest.mark.parametrize("name, asked, factor, share", [
    ("grey", 0.15, "grey", 0.15), ("mask", 0.4, "mask", 0.4), ("jpeg", 0.35, "jpeg", 0.35),
    ("glasses", 1.0, "glasses", 0.5), ("glasses", 2.0, "glasses", 1.0),
    ("profile", 0.3, "yaw", 0.3)])
def test_shares_of_pictures_are_what_was_asked(name, asked, factor, share):
    nuisance = NUISANCE | {"yaw_sd": 0, name: asked}
    found = sum(draw_image(0, i, 0, nuisance, SOMEBODY)[factor] != 0 for i in range(600))
    low, high = binom.interval(1 - 1e-6, 600, share)
    assert low <= found <= high


def test_a_profile_is_turned_55_to_80_degrees_to_either_side():
    yaw = [math.degrees(draw_image(0, i, 0, NUISANCE | {"profile": 1}, SOMEBODY)["yaw"])
           for i in range(200)]
    assert all(55 <= abs(angle) <= 80 for angle in yaw)
    assert min(yaw) < -70 and max(yaw) > 70


def test_an_age_gap_lies_between_even_and_odd_pictures():
    young, late = (draw_image(0, 1, j, NUISANCE | {"age_gap": 30}, SOMEBODY) for j in (0, 1))
    assert (young["age"], late["age"]) == (25, 55)
    drawn = [draw_image(0, i, 0, NUISANCE | {"age_sd": 3}, SOMEBODY)["age"] for i in range(200)]
    assert 2 < torch.tensor(drawn).std() < 4
    held = [draw_image(0, 1, j, NUISANCE | {"age_gap": 60}, {"age": a, "glasses": 0})["age"]
            for j, a in ((0, 10.0), (1, 80.0))]
    assert held == [YOUNGEST, OLDEST]


def test_rotations_are_orthonormal():
    angles = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = rotation(*angles)
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(turn @ turn.transpose(1, 2), identity)
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(50, dtype=torch.float64))


def test_positive_angles_turn_right_down_and_left():
    angle, zero = torch.tensor([0.3]), torch.tensor([0.0])
    nose, crown = torch.tensor([0.0, -0.065, 0.0]), torch.tensor([0.0, 0.0, 0.14])
    assert (rotation(angle, zero, zero)[0] @ nose)[0] > 0  # yaw: nose to the image's right
    assert (rotation(zero, angle, zero)[0] @ nose)[2] < 0  # pitch: nose down
    assert (rotation(zero, zero, angle)[0] @ crown)[0] < 0  # roll: crown to the image's left
    # Turned first, tilted last: a tilt of a turned head keeps the nose's depth.
    depth = (rotation(angle, zero, zero)[0] @ nose)[1]
    assert (rotation(angle, zero, angle)[0] @ nose)[1] == pytest.approx(float(depth))


# What belongs to a person alone, to a picture alone


def test_another_dimension_changes_the_shape_alone():
    for i in range(20):
        few, many = draw_identity(0, i, 5), draw_identity(0, i, 110)
        assert torch.equal(few.pop("shape"), many.pop("shape")[:5])
        assert same(few, many)


def test_another_population_s_ages_change_what_age_does_alone():
    differ = set()
    for i in range(200):
        a, b = draw_identity(0, i, 80), draw_identity(0, i, 80, (60, 75))
        differ |= {name for name in a if not same(a[name], b[name])}
    assert differ == {"age", "style"}  # men of 60 are bald more often than men of 18


MOVES = {
    "yaw_sd": {"yaw"}, "pitch_sd": {"pitch"}, "roll_sd": {"roll"}, "profile": {"yaw"},
    "expression": {"expression"}, "age_sd": {"age"}, "age_gap": {"age"}, "glasses": {"glasses"},
    "mask": {"mask"}, "blur": {"blur"}, "noise": {"noise"}, "jpeg": {"jpeg"}, "grey": {"grey"},
    "light": {"light", "key", "ambient", "fill", "rim", "warmth", "exposure", "gamma"}}
@pytest.mark.parametrize("name, factors", MOVES.items())
def test_a_nuisance_moves_its_own_factors_alone(name, factors):
    low, high = RANGES[name]
    moved = set()
    for j in range(40):
        a, b = (draw_image(0, 1, j, NUISANCE | {name: value}, SOMEBODY) for value in (low, high))
        moved |= {factor for factor in a if not same(a[factor], b[factor])}
    assert moved == factors


def test_every_nuisance_is_among_them():
    assert MOVES.keys() == NUISANCE.keys()


def test_the_order_of_asking_changes_no_factor():
    pairs = [(i, j) for i in range(3) for j in range(3)]
    forth, back = FaceWorld(0), FaceWorld(0)
    one = {pair: forth.describe(*pair) for pair in pairs}
    other = {pair: back.describe(*pair) for pair in reversed(pairs)}
    assert all(same(one[pair], other[pair]) for pair in pairs)


def test_what_describe_tells_is_plain_finite_and_can_be_written_down():
    def plain(value):
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        if isinstance(value, torch.Tensor):
            assert value.dtype == torch.float32
            return value.tolist()
        assert type(value) in (str, int, float), value
        return value

    told = plain(FaceWorld(0, mask=0.5).describe(2, 1))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["identity"].keys() == draw_identity(0, 2, 80).keys()
    assert told["image"].keys() == draw_image(0, 2, 1, NUISANCE, SOMEBODY).keys()


def test_a_factor_of_an_image_is_the_caller_s_own():
    world = FaceWorld(0)
    world.image(2, 1)["background"].zero_()
    assert world.image(2, 1)["background"].any()
