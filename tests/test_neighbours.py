"""Nearest neighbours: against all distances, over blocks, ties, far origins; the guarantee."""

import numpy as np
import pytest
import torch

from kdlab import cloud as clouds
from kdlab import neighbours
from kdlab.cloud import Cloud
from kdlab.neighbours import nearest, nearest_of


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks that do not divide the points, so that a few hundred points make many."""
    monkeypatch.setattr(clouds, "BLOCK", 96)
    monkeypatch.setattr(clouds, "SOME", 96)
    monkeypatch.setattr(neighbours, "GPU", 70)
    monkeypatch.setattr(neighbours, "FEW", 50)


def draw(n=300, D=20, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((n, D)).astype(dtype)


def by_hand(x, k):
    """Distances and indices from all differences in float64; ties by index."""
    x = np.asarray(x, np.float64)
    distances = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, 1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def on_the_other_path(cloud):
    """The cloud as a GPU's would be, on the CPU."""
    cloud.x = torch.from_numpy(np.asarray(cloud.x))
    return cloud


def agree(x, k, other=False, indices=True):
    cloud = Cloud(x)
    found = nearest(on_the_other_path(cloud) if other else cloud, k)
    distances, order = by_hand(x, k)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-13)
    if indices:
        np.testing.assert_array_equal(found.indices, order)


@pytest.fixture
def again(monkeypatch):
    """How many rows were done again."""
    rows, real = [], neighbours._again

    def count(cloud, some, *rest):
        rows.extend(some)
        return real(cloud, some, *rest)

    monkeypatch.setattr(neighbours, "_again", count)
    return rows


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, D, k", [(300, 20, 2), (300, 3, 12), (97, 1, 5), (96, 200, 1),
                                     (3, 2, 2), (2, 5, 1), (5, 2, 4)])
def test_all_distances_by_hand(n, D, k, dtype, other, again):
    agree(draw(n, D, dtype), k, other)
    assert len(again) < n / 10 + 1  # the float32 product decides for nearly all


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    agree(draw(), 6)


def test_four_points_by_hand():
    found = nearest(Cloud(np.array([[0.0, 0], [3, 4], [0, 1], [6, 8]])), 2)
    np.testing.assert_array_equal(found.indices, [[2, 1], [2, 0], [0, 1], [1, 2]])
    np.testing.assert_allclose(found.distances, [[1, 5], [18**.5, 5], [1, 18**.5], [5, 85**.5]])


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("far", [1e3, 1e5])
def test_float32_far_from_the_origin_keeps_its_digits(far, other):
    agree((draw() + far).astype(np.float32), 4, other)


@pytest.mark.parametrize("other", [False, True])
def test_near_duplicates_keep_their_digits(other):
    """Unit rows at 1e-4: 2 - 2 cos in float32 is 1e-8 + 6e-8, no digit right."""
    x = draw(150, 64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = np.concatenate([x, x + 1e-4 * draw(150, 64, seed=1) / 8]).astype(np.float32)
    agree(x, 2, other)
    unit = np.linalg.norm(x, axis=1)
    assert abs(unit - 1).max() < 1e-3 and by_hand(x, 1)[0].max() < 2e-4
    expanded = np.sqrt(np.maximum(2 - 2 * (x @ x.T), 0))[np.arange(150), np.arange(150) + 150]
    assert np.median(abs(expanded / by_hand(x, 1)[0][:150, 0] - 1)) > 0.1  # so it would be lost


@pytest.mark.parametrize("other", [False, True])
def test_clusters_far_apart(other, again):
    x = draw(200, 30)
    x[100:] += 1e6
    agree(x, 5, other)
    assert len(again) >= 100  # no float32 product tells neighbours in the one that is far out


def test_one_row_far_out_does_not_spoil_the_others(again):
    x = draw(200, 30)
    x[7] *= 1e5
    agree(x, 3)
    assert len(again) <= 2


@pytest.mark.parametrize("other", [False, True])
def test_ties_go_to_the_lower_index(other, again):
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 4), -1).reshape(-1, 4)
    agree(grid, 3, other)
    assert len(again) >= 16  # inside: eight neighbours at 1
    agree(np.eye(120), 4, other)  # all equally far
    agree(np.tile(draw(40, 5), (4, 1)), 5, other)  # three copies of each


def test_all_rows_equal():
    found = nearest(Cloud(np.ones((120, 4))), 2)
    assert not found.distances.any()
    np.testing.assert_array_equal(found.indices[:3], [[1, 2], [0, 2], [0, 1]])


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_very_small_and_very_large_numbers(scale, again):
    x = draw(200, 10)
    found, expected = nearest(Cloud(x * scale), 3), nearest(Cloud(x), 3)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.distances / scale, expected.distances, rtol=1e-13)
    assert len(again) < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "cone", "parallel", "mixed"])
def test_the_bound_bounds(kind, dtype):
    """half(a) + half(b) - product never exceeds |a - b|^2 / 2, and is close to it."""
    D = 512
    x = draw(80, D)
    if kind == "cone":
        x = np.abs(x) + 3
    if kind == "parallel":
        x = x[:1] * np.linspace(1, 2, 80)[:, None]  # products add up without cancelling
    if kind == "mixed":
        x *= np.logspace(-4, 4, 80)[:, None]
    cloud = Cloud(x)
    cloud.centre[:] = 0  # any will do: the worst is a centre outside the points
    rows = cloud.centred(slice(None), torch.float64)
    cloud.square = rows.square().sum(1).numpy()
    product = rows.to(dtype) @ rows.to(dtype).T
    half = neighbours._half(cloud, slice(None), dtype)
    below = (half[:, None] - (product - half)).double().numpy()
    exact = (rows.numpy()[:, None] - rows.numpy()[None]) ** 2
    exact = exact.astype(np.longdouble).sum(2) / 2
    scale = cloud.square[:, None] + cloud.square
    assert (below <= exact * (1 + 1e-15)).all()
    assert ((exact - below) / scale).max() < 2 * neighbours._bound(D, dtype)


def test_reduced_precision_of_training_is_not_used_and_left_as_it_was(monkeypatch):
    """This processor may not know bfloat16, so what is in force at each product counts, too."""
    seen, real = [], neighbours._half

    def watch(cloud, part, dtype):
        seen.append((dtype, torch.get_float32_matmul_precision()))
        return real(cloud, part, dtype)

    monkeypatch.setattr(neighbours, "_half", watch)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        agree(draw(300, 64, np.float32), 4)
        seen.clear()
        agree(draw(300, 64, np.float32), 4, other=True)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen.count((torch.float32, "highest")) == 25  # blocks of 300 rows by 70


def test_a_memory_map_is_read_in_blocks(tmp_path, monkeypatch):
    x = draw(500, 8, np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r", allow_pickle=False)
    lengths, real = [], Cloud.rows

    def watch(cloud, part):
        lengths.append(len(cloud.index[part]))
        return real(cloud, part)

    monkeypatch.setattr(Cloud, "rows", watch)
    cloud = Cloud(mapped)
    assert np.shares_memory(cloud.x, mapped)
    found = nearest(cloud, 3)
    assert max(lengths) == 96 and len(lengths) > 10
    np.testing.assert_array_equal(found.indices, by_hand(x, 3)[1])


@pytest.mark.parametrize("make", [
    lambda x: x.astype(np.float16), lambda x: (x * 10).astype(np.int32), lambda x: x[:, ::2],
    lambda x: np.asfortranarray(x), lambda x: x.astype(">f4"), lambda x: torch.from_numpy(x),
    lambda x: torch.from_numpy(x).bfloat16(), lambda x: torch.from_numpy(x).requires_grad_(),
    lambda x: x[::-1], lambda x: x.tolist(),
])
def test_other_layouts_and_types(make):
    x = make(draw(120, 10, np.float32))
    plain = x.detach().double().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, float)
    distances, order = by_hand(plain, 3)
    np.testing.assert_allclose(nearest(Cloud(x), 3).distances, distances, rtol=1e-13)


def test_rows_of_length_one():
    x = draw(150, 12, np.float32) * np.logspace(-30, 30, 150, dtype=np.float32)[:, None]
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = nearest(Cloud(x, normalize=True), 4)
    np.testing.assert_array_equal(found.indices, by_hand(unit, 4)[1])
    np.testing.assert_allclose(found.distances, by_hand(unit, 4)[0], rtol=1e-12)


def test_equal_rows_are_at_zero_even_when_scaled():
    x = np.repeat(draw(100, 7, np.float32), 2, 0)
    found = nearest(Cloud(x, normalize=True), 2)
    assert not found.distances[:, 0].any() and found.distances[:, 1].min() > 0.01


def test_distinct_rows():
    x = np.array([[1.0, 0], [2, 0], [1, 0], [1, -0.0], [0, 1], [2, 0], [3, 0]])
    np.testing.assert_array_equal(Cloud(x).distinct().index, [0, 1, 4, 6])
    np.testing.assert_array_equal(Cloud(x, normalize=True).distinct().index, [0, 4])


@pytest.mark.parametrize("other", [False, True])
def test_a_subset_is_a_cloud_of_its_own(other):
    x = draw()
    rows = np.random.default_rng(5).permutation(300)[:130]
    cloud = on_the_other_path(Cloud(x)) if other else Cloud(x)
    found = nearest(cloud.subset(rows).subset(np.arange(5, 130)), 4)
    np.testing.assert_array_equal(found.indices, by_hand(x[rows[5:]], 4)[1])


def test_one_row_measured_against_all():
    x = draw()
    distances, order = by_hand(x, 5)
    for row in (0, 150, 299):
        found = nearest_of(Cloud(x), row, 5)
        np.testing.assert_allclose(found.distances, distances[row], rtol=1e-13)
        np.testing.assert_array_equal(found.indices, order[row])


@pytest.mark.parametrize("k", [0, 10, -1])
def test_not_so_many_neighbours(k):
    with pytest.raises(ValueError, match="of 10 points none has .* k must be 1 to 9"):
        nearest(Cloud(draw(10)), k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_first_row_that_is_not_finite_is_named(bad, normalize):
    x = draw()
    x[140, 3] = x[205, 0] = bad
    with pytest.raises(ValueError, match=r"row 140 is not finite .* 2 of 300 in all"):
        Cloud(x, normalize)


def test_a_zero_row_has_no_direction():
    x = draw()
    x[100] = 0
    assert len(Cloud(x)) == 300
    with pytest.raises(ValueError, match="row 100 is zero and has no direction"):
        Cloud(x, normalize=True)


@pytest.mark.parametrize("x, message", [
    (np.zeros(5), r"rows of a table \(n, D\), not \(5,\)"),
    (np.zeros((5, 2, 2)), r"not \(5, 2, 2\)"),
    (np.zeros((5, 0)), r"not \(5, 0\)"),
    (np.array([["a", "b"]]), "must be real numbers, not <U1"),
    (np.zeros((3, 2), complex), "must be real numbers, not complex128"),
    (torch.zeros(3, 2, dtype=torch.complex64), "must be real numbers, not torch.complex64"),
    (np.array([[object()]]), "must be real numbers, not object"),
])
def test_what_is_no_table_of_numbers(x, message):
    with pytest.raises(ValueError, match=message):
        Cloud(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gpu_finds_the_same(dtype):
    x = torch.from_numpy(draw(1000, 64)).to(dtype)
    found, expected = nearest(Cloud(x.cuda(), True), 12), nearest(Cloud(x, True), 12)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-12)
