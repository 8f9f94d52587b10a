"""The z-buffer against a loop over pixels and triangles, and what a renderer relies on."""

import numpy as np
import pytest
import torch

from kdlab.world.raster import at_pixels, interpolate, rasterise


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
