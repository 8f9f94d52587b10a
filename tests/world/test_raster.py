"""The z-buffer against a loop over pixels and triangles, and what a renderer relies on.

Every test runs on both forms of each function, the compiled one and the one in torch.
"""

from concurrent.futures import ThreadPoolExecutor
from types import FunctionType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdlab.world import raster
from kdlab.world.head import load_head
from kdlab.world.raster import (
    at_pixels,
    blend,
    blend_corners,
    interpolate,
    normals,
    rasterise,
    rasterise_torch,
    sample,
)


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def form(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(raster, "_compiles", lambda *tensors: False)
    return request.param


@pytest.fixture
def both(monkeypatch):
    """Calls a function in its compiled form and in its torch form."""
    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(raster, "_compiles", lambda *tensors: True)
            compiled = function(*arguments)
            patch.setattr(raster, "_compiles", lambda *tensors: False)
            return compiled, function(*arguments)
    return call


def slow(points, depth, faces, height, width):
    """One pixel, one triangle at a time, float64: nearest front-facing triangle or -1."""
    points, depth = points.double().numpy(), depth.double().numpy()
    out = np.full((height, width), -1)
    for row in range(height):
        for column in range(width):
            nearest = np.inf
            for t, (i, j, k) in enumerate(faces.tolist()):
                (ax, ay), (bx, by), (cx, cy) = points[[i, j, k]]
                area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
                if area <= 1e-6:  # seen from behind, or a line
                    continue
                w_b = ((column - ax) * (cy - ay) - (row - ay) * (cx - ax)) / area
                w_c = ((bx - ax) * (row - ay) - (by - ay) * (column - ax)) / area
                if w_b < 0 or w_c < 0 or w_b + w_c > 1:
                    continue
                z = depth[i] + w_b * (depth[j] - depth[i]) + w_c * (depth[k] - depth[i])
                if z < nearest:
                    nearest, out[row, column] = z, t
    return out


def soup(seed, triangles=60, height=17, width=23):
    """Unconnected triangles of all sizes round the picture; half of them face away."""
    rng = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height])
    centre = (torch.rand(triangles, 1, 2, generator=rng) * 1.6 - 0.3) * size
    spread = 6 * torch.rand(triangles, 1, 1, generator=rng)
    points = centre + spread * torch.randn(triangles, 3, 2, generator=rng)
    points[0, 1] = points[0, 0]  # a line
    points[1] = points[1, :1]  # a point
    points[2] = torch.tensor([[-90.0, -90], [-80, -90], [-90, -80]])  # outside
    faces = torch.arange(3 * triangles).reshape(-1, 3)
    return points.reshape(-1, 2), torch.rand(3 * triangles, generator=rng), faces


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_loop(seed):
    points, depth, faces = soup(seed)
    got = rasterise(points[None], depth[None], faces, 17, 23)[0].numpy()
    expected = slow(points, depth, faces, 17, 23)
    np.testing.assert_array_equal(got, expected)
    assert len(np.unique(got)) > 5  # the scene shows several triangles


@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 11, 19, 33, 120])
def test_every_bounding_box_size_is_drawn(side):
    points = torch.tensor([[[0.0, 0], [side - 0.5, 0], [0, side - 0.5]]])
    seen = rasterise(points, torch.ones(1, 3), torch.tensor([[0, 1, 2]]), 130, 130)[0]
    row, column = torch.meshgrid(torch.arange(130), torch.arange(130), indexing="ij")
    assert torch.equal(seen == 0, row + column <= side - 0.5)


def test_a_triangle_larger_than_the_largest_box_is_drawn():
    points = torch.tensor([[[-10.0, -10], [1200, -10], [-10, 1200]]])
    seen = rasterise(points, torch.ones(1, 3), torch.tensor([[0, 1, 2]]), 420, 420)
    assert (seen == 0).all()


def mesh(seed, n=12, step=3, jitter=0.0):
    """A sheet of triangles over an n x n lattice, in random order."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    points = torch.stack([x, y], -1).float() * step
    points[1:-1, 1:-1] += jitter * (torch.rand(n - 2, n - 2, 2, generator=rng) - 0.5)
    a = torch.arange(n * n).reshape(n, n)[:-1, :-1].reshape(-1)
    upper, lower = torch.stack([a, a + 1, a + n], 1), torch.stack([a + 1, a + n + 1, a + n], 1)
    faces = torch.cat([upper, lower])
    faces = faces[torch.randperm(len(faces), generator=rng)]
    return points.reshape(-1, 2), 1 + 0.1 * torch.randn(n * n, generator=rng), faces


@pytest.mark.parametrize("jitter", [0.0, 2.0])
def test_a_closed_sheet_has_no_holes(jitter):
    for seed in range(20):
        points, depth, faces = mesh(seed, jitter=jitter)
        seen = rasterise(points[None], depth[None], faces, 34, 34)[0]
        # The outermost row and column lie on the sheet's edge, where rounding may decide.
        assert (seen[:33, :33] >= 0).all()


def test_equal_depth_shows_the_first_triangle():
    points = torch.tensor([[[0.0, 0], [9, 0], [0, 9]]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 2], [1, 2, 0]])  # behind, front, the same again
    seen = rasterise(points, torch.ones(1, 3), faces, 10, 10)
    assert set(seen.unique().tolist()) == {-1, 1}


def test_a_sliver_is_not_drawn():
    points = torch.tensor([[[0.0, 0], [9, 0], [9, 1e-8]]])
    seen = rasterise(points, torch.ones(1, 3), torch.tensor([[0, 1, 2], [0, 2, 1]]), 4, 10)
    assert (seen == -1).all()


def test_nothing_in_view_gives_an_empty_picture():
    points = torch.full((2, 3, 2), -5.0)
    seen = rasterise(points, torch.ones(2, 3), torch.tensor([[0, 1, 2]]), 4, 6)
    assert seen.shape == (2, 4, 6) and (seen == -1).all()


def test_interpolate_is_exact_on_affine_functions():
    points, depth, faces = mesh(0, jitter=2.0)
    seen = rasterise(points[None], depth[None], faces, 40, 40)
    A, b = torch.tensor([[0.3, -0.2], [1.0, 0.5], [0.0, 0.0]]), torch.tensor([1.0, -2.0, 7.0])
    got = interpolate((points @ A.T + b)[None], faces, seen, points[None])[0]
    row, column = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    expected = torch.stack([column, row], -1) @ A.T + b
    covered = seen[0] >= 0
    assert covered[:33, :33].all() and not covered[34:].any()
    torch.testing.assert_close(got[covered], expected[covered], rtol=0, atol=2e-4)
    assert (got[~covered] == 0).all()


def test_weights_are_barycentric():
    points, depth, faces = soup(1)
    seen = rasterise(points[None], depth[None], faces, 17, 23)
    where, triangle, weights = at_pixels(points[None], faces, seen)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(where)), rtol=0, atol=1e-5)
    assert weights.min() > -1e-4
    back = (weights[..., None] * points[faces[triangle]]).sum(1)
    pixel = torch.stack([where % 23, where // 23], 1).float()
    torch.testing.assert_close(back, pixel, rtol=0, atol=1e-3)


def test_each_picture_is_drawn_as_if_alone():
    scenes = [soup(seed) for seed in range(6)]
    points, depth = (torch.stack([scene[k] for scene in scenes]) for k in (0, 1))
    faces = scenes[0][2]
    together = rasterise(points, depth, faces, 17, 23)
    for k in range(6):
        alone = rasterise(points[k:k + 1], depth[k:k + 1], faces, 17, 23)[0]
        assert torch.equal(together[k], alone)


def test_pixels_on_a_shared_edge_are_drawn_as_if_alone():
    for seed in range(20):
        points, depth, faces = mesh(seed)  # corners on pixel centres: every edge is a tie
        alone = rasterise(points[None], depth[None], faces, 34, 34)[0]
        other = torch.stack([depth, depth * 3 + 1])
        together = rasterise(points.expand(2, -1, -1), other, faces, 34, 34)[0]
        assert torch.equal(alone, together)


def heads(count=4):
    """Real heads as a camera turned by up to 60 degrees sees them: vertices, points, depth."""
    head = load_head()
    rng = torch.Generator().manual_seed(1)
    shapes = head.mean + 0.7 * torch.stack([
        (torch.randn(len(head.components), 1, 1, generator=rng) * head.components).sum(0)
        for _ in range(count)])
    yaw = torch.linspace(-1, 1, count)[:, None]
    x, y, z = shapes.unbind(-1)
    turned = torch.stack([yaw.cos() * x - yaw.sin() * y, yaw.sin() * x + yaw.cos() * y, z], -1)
    scale = 231 / 0.26  # pixels a metre: the head fills the picture
    points = torch.stack([turned[..., 0], -turned[..., 2]], -1) * scale + 119
    return turned, points, turned[..., 1], head.faces


def test_both_forms_see_the_same_heads():
    _, points, depth, faces = heads()
    seen = rasterise(points, depth, faces, 238, 231)
    # Both forms take the same steps in float32, so not one pixel differs: ties are broken alike.
    assert torch.equal(seen, rasterise_torch(points, depth, faces, 238, 231))
    assert 0.3 < (seen >= 0).float().mean() < 0.9


def test_float32_on_the_cpu_without_gradients_is_compiled(form):
    a = torch.zeros(3)
    assert raster._compiles(a, a) == (form == "compiled")
    for other in (a.double(), a.clone().requires_grad_(), a.to("meta")):
        assert not raster._compiles(a, other)


def test_pixels_and_blends_agree_between_the_forms(both):
    vertices, points, depth, faces = heads(2)
    seen = rasterise(points, depth, faces, 238, 231)
    compiled, plain = both(at_pixels, points, faces, seen)
    assert all(torch.equal(a, b) for a, b in zip(compiled, plain, strict=True))
    for values in (vertices, torch.randn(*points.shape[:2], 11)):
        compiled, plain = both(blend, values, faces, seen.shape, *at_pixels(points, faces, seen))
        torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-5)
    where, triangle, weights = at_pixels(points, faces, seen)
    compiled, plain = both(blend_corners, torch.rand(len(faces), 3, 2) * 300, triangle, weights)
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-3)  # of texels


def test_blends_agree_with_a_loop():
    points, depth, faces = soup(2)
    two = torch.stack([points, points + 1])
    seen = rasterise(two, depth.expand(2, -1), faces, 17, 23)
    where, triangle, weights = at_pixels(two, faces, seen)
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(2, len(points), 3, generator=rng)
    corners = torch.randn(len(faces), 3, 2, generator=rng)
    got = blend(values, faces, seen.shape, where, triangle, weights)
    got_corners = blend_corners(corners, triangle, weights)
    assert len(where) == (seen >= 0).sum() > 50 and got.dtype == torch.float32
    for p in range(len(where)):
        image, row, column = where[p] // (17 * 23), where[p] // 23 % 17, where[p] % 23
        assert triangle[p] == seen[image, row, column]
        parts = [weights[p, k] * values[image, faces[triangle[p], k]] for k in range(3)]
        torch.testing.assert_close(got[p], sum(parts), rtol=0, atol=1e-5)
        parts = [weights[p, k] * corners[triangle[p], k] for k in range(3)]
        torch.testing.assert_close(got_corners[p], sum(parts), rtol=0, atol=1e-5)


def atlases_and_texels(P=500):
    rng = torch.Generator().manual_seed(3)
    atlases = torch.rand(3, 7, 12, 17, generator=rng)
    texel = torch.rand(P, 2, generator=rng) * torch.tensor([24.0, 18]) - 3.5
    texel[:4] = torch.tensor([[0.0, 0], [16, 11], [5, 7], [-9e9, 9e9]])
    return atlases, torch.randint(0, 3, (P,), generator=rng), texel


def test_samples_are_those_of_grid_sample():
    atlases, picture, texel = atlases_and_texels()
    grid = (texel + 0.5) / torch.tensor([17, 12]) * 2 - 1
    expected = F.grid_sample(atlases[picture], grid[:, None, None], align_corners=False,
                             padding_mode="border")[:, :, 0, 0]
    got = sample(atlases, picture, texel)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert torch.equal(got[2], atlases[picture[2], :, 7, 5])  # integers are texel centres
    assert torch.equal(got[3], atlases[picture[3], :, 11, 0])


def test_samples_read_nothing_beyond_the_border():
    atlases, picture, texel = atlases_and_texels()
    framed = torch.full((3, 7, 13, 18), torch.nan)
    framed[:, :, :12, :17] = atlases
    assert torch.equal(sample(framed[:, :, :12, :17], picture, texel),
                       sample(atlases, picture, texel))


def test_samples_agree_with_a_loop():
    atlases, picture, texel = atlases_and_texels(60)
    got = sample(atlases, picture, texel)
    for p in range(60):
        x, y = min(max(float(texel[p, 0]), 0), 16), min(max(float(texel[p, 1]), 0), 11)
        expected = torch.zeros(7)
        for row in range(12):
            for column in range(17):
                share = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
                expected += share * atlases[picture[p], :, row, column]
        torch.testing.assert_close(got[p], expected, rtol=0, atol=1e-5)


def test_normals_agree_between_the_forms(both):
    vertices, _, _, faces = heads(3)
    compiled, plain = both(normals, vertices, faces)
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-5)
    outward = (compiled * (vertices - vertices.mean(1, keepdim=True))).sum(-1)
    assert (outward > 0).float().mean() > 0.7


def test_normals_agree_with_a_loop():
    points, depth, faces = mesh(4, n=5, jitter=2.0)
    vertices = torch.cat([points, depth[:, None]], 1)
    spare = torch.tensor([[9.0, 9, 9]])  # a vertex of no triangle
    got = normals(torch.cat([vertices, spare])[None], faces)[0]
    for v in range(len(vertices)):
        total = np.zeros(3)
        for t in faces.tolist():
            if v in t:
                a, b, c = vertices[t].double().numpy()
                total += np.cross(c - a, b - a)
        np.testing.assert_allclose(got[v], total / np.linalg.norm(total), rtol=0, atol=1e-5)
    assert (got[-1] == 0).all() and got.dtype == torch.float32


def test_a_part_collapsed_to_a_point_is_hidden():
    _, points, depth, faces = heads(1)
    part = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))[:3000]
    own = torch.arange(9000).reshape(-1, 3) + points.shape[1]  # a second, nearer layer
    both = torch.cat([faces, own])
    near = depth[:, faces[part]].reshape(1, -1) - 0.01
    shown = torch.cat([points, points[:, faces[part]].reshape(1, -1, 2)], 1)
    hidden = torch.cat([points, points[:, :1].expand(-1, 9000, -1)], 1)
    depth_of_both = torch.cat([depth, near], 1)
    plain = rasterise(points, depth, faces, 238, 231)
    assert (rasterise(shown, depth_of_both, both, 238, 231) >= len(faces)).sum() > 5000
    seen = rasterise(hidden, depth_of_both, both, 238, 231)
    assert seen.max() < len(faces)
    assert (seen != plain).float().mean() < 1e-3  # depth has other steps now: near ties may turn
    flat = torch.zeros(1, 3, 3)
    assert (normals(flat, torch.tensor([[0, 1, 2]])) == 0).all()


def test_no_pixels_give_no_values():
    points, faces = torch.full((2, 3, 2), -5.0), torch.tensor([[0, 1, 2]])
    seen = rasterise(points, torch.ones(2, 3), faces, 4, 6)
    where, triangle, weights = at_pixels(points, faces, seen)
    assert where.shape == triangle.shape == (0,) and weights.shape == (0, 3)
    assert where.dtype == triangle.dtype == torch.int64
    values = torch.rand(2, 3, 5)
    assert blend(values, faces, seen.shape, where, triangle, weights).shape == (0, 5)
    assert blend_corners(torch.rand(1, 3, 2), triangle, weights).shape == (0, 2)
    assert sample(torch.rand(1, 7, 4, 4), where, torch.zeros(0, 2)).shape == (0, 7)
    assert (interpolate(values, faces, seen, points) == 0).all()


def test_layout_in_memory_changes_nothing():
    def scattered(tensor):  # the same numbers, every second one in memory, axes turned round
        turned = tensor.permute(*reversed(range(tensor.ndim)))
        wide = torch.stack([turned, turned], -1).reshape(*turned.shape[:-1], -1)[..., ::2]
        out = wide.permute(*reversed(range(tensor.ndim)))
        assert not out.is_contiguous() and torch.equal(out, tensor)
        return out

    points, depth, faces = soup(3)
    points, depth = torch.stack([points, points + 2]), torch.stack([depth, 1 - depth])
    odd_points, odd_depth, odd_faces = map(scattered, (points, depth, faces))
    seen = rasterise(points, depth, faces, 17, 23)
    assert torch.equal(seen, rasterise(odd_points, odd_depth, odd_faces, 17, 23))
    listed = at_pixels(points, faces, seen)
    for a, b in zip(listed, at_pixels(odd_points, odd_faces, scattered(seen)), strict=True):
        assert torch.equal(a, b)
    where, triangle, weights = listed
    values = torch.rand(2, points.shape[1], 3)
    odd = [scattered(t) for t in (where, triangle, weights)]
    assert torch.equal(blend(values, faces, seen.shape, *listed),
                       blend(scattered(values), odd_faces, seen.shape, *odd))
    corners = torch.rand(len(faces), 3, 2)
    assert torch.equal(blend_corners(corners, triangle, weights),
                       blend_corners(scattered(corners), *odd[1:]))
    arguments = atlases_and_texels()
    for atlases in (scattered(arguments[0]),
                    arguments[0].contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(sample(*arguments), sample(
            atlases, *map(scattered, arguments[1:])), rtol=0, atol=1e-6)
    torch.testing.assert_close(normals(values, faces), normals(scattered(values), odd_faces),
                               rtol=0, atol=1e-6)


def _everything(points, depth, vertices, faces, atlases):
    """All that a renderer asks, of a batch of heads, as one list of tensors a picture."""
    seen = rasterise(points, depth, faces, 60, 58)
    where, triangle, weights = at_pixels(points, faces, seen)
    values = blend(normals(vertices, faces), faces, seen.shape, where, triangle, weights)
    image = where // seen[0].numel()
    colour = sample(atlases, image, values[:, :2] * 8 + 8)
    return [(seen[k], values[image == k], colour[image == k]) for k in range(len(points))]


def test_batches_and_threads_change_no_bit():
    vertices, points, depth, faces = heads(4)
    points, atlases = points / 4, torch.rand(4, 7, 16, 16)
    together = _everything(points, depth, vertices, faces, atlases)

    def alone(k):
        one = slice(k, k + 1)
        return _everything(points[one], depth[one], vertices[one], faces, atlases[one])[0]

    with ThreadPoolExecutor(4) as pool:
        for expected, got in zip(together * 3, pool.map(alone, list(range(4)) * 3), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_numbers_of_what_is_not_there_are_refused(form):
    points, depth, faces = torch.rand(1, 3, 2), torch.rand(1, 3), torch.tensor([[0, 1, 3]])
    none, weights = torch.tensor([5]), torch.ones(1, 3)
    with pytest.raises(IndexError):
        rasterise(points, depth, faces, 4, 4)
    with pytest.raises(IndexError):
        normals(torch.rand(1, 3, 3), faces)
    with pytest.raises(IndexError):
        blend_corners(torch.rand(1, 3, 2), none, weights)
    with pytest.raises(IndexError):
        sample(torch.rand(1, 7, 4, 4), none, torch.zeros(1, 2))
    with pytest.raises(IndexError):
        at_pixels(points, faces.clamp(max=2), torch.full((1, 4, 4), 5))
    if form == "compiled":  # torch counts negative numbers from the end
        with pytest.raises(IndexError, match="must be 0 to 0, not -1 to -1"):
            blend_corners(torch.rand(1, 3, 2), -torch.ones(1, dtype=torch.int64), weights)


def test_what_is_not_a_number_stays_inside_the_picture(form):
    if form == "compiled":  # torch itself refuses it
        atlas, texel = torch.rand(1, 7, 4, 5), torch.tensor([[torch.nan, 2], [torch.inf, 2]])
        got = sample(atlas, torch.tensor([0, 0]), texel)
        assert torch.equal(got, atlas[0, :, 2, [0, 4]].T)
    points, faces = torch.zeros(1, 3, 2), torch.tensor([[0, 1, 2], [0, 2, 1]])
    for odd in (torch.nan, torch.inf, -torch.inf):
        points[0, 1, 0], points[0, 2, 1] = odd, 9.0
        assert rasterise(points, torch.ones(1, 3), faces, 5, 5).shape == (1, 5, 5)


def test_gradients_flow_through_the_values():
    points, depth, faces = mesh(0)
    seen = rasterise(points[None], depth[None], faces, 34, 34)
    values = torch.rand(1, len(points), 2, requires_grad=True)
    interpolate(values, faces, seen, points[None]).sum().backward()
    torch.testing.assert_close(values.grad.sum(), 2 * (seen >= 0).sum().float(), rtol=1e-4, atol=0)


def test_without_a_folder_for_compiled_code_it_still_compiles():
    def double(array):
        for n in range(len(array)):
            array[n] *= 2

    nowhere = double.__code__.replace(co_filename="/no/such/folder/loop.py")
    array = np.arange(3.0)
    compiled = raster._compiled(FunctionType(nowhere, globals()))
    compiled(array)
    assert array.tolist() == [0, 2, 4] and compiled.signatures
