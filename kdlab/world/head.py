"""The CC0 MakeHuman head as tensors: shape, expressions, regions, landmarks, texture layout.

Axes of the head, in metres: x to the image's right, y into the image, z up. The file
data/head.safetensors is made by scripts/export_head.py.

Texture layout (`ATLAS` rows x columns): skin and hair are unrolled round the vertical axis,
the front half wider than the back; two patches in the rows below hold the eye and the
mouth's inside. So one picture per identity, painted once, dresses every image of it.
"""

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdlab.world.raster import interpolate, rasterise

HEAD_FILE = Path(__file__).resolve().parents[2] / "data" / "head.safetensors"
SKIN_ROWS, ATLAS = 256, (320, 384)  # 1 mm a texel on the face; 64 rows of patches
EYE_PATCH = (256, 0, 64)  # first row, first column, side
MOUTH_PATCH = (256, 64, 64)
LID_PATCH = (256, 128, 64)
FRONT = 0.72  # share of the columns for the front half
_MOUTH_LIGHT = 0.06  # no sky is seen from within the mouth, yet it is not black
_PLACES = 13  # along the arch of teeth
# Gums and edges of the teeth: height in metres, and the row of the mouth's patch painted there.
_GUM, _EDGE = (-0.030, 1.0), (-0.0425, 14.6)


@dataclass(frozen=True)
class Head:
    """Everything about the head that no identity changes. V vertices, T triangles."""

    mean: Tensor  # (V, 3) metres
    directions: dict[str, Tensor]  # phenotype -> (V, 3) offset per unit
    components: Tensor  # (K, V, 3), one standard deviation each
    expressions: dict[str, Tensor]  # action -> (V, 3) offset at full strength
    faces: Tensor  # (T, 3), clockwise on the screen from the front
    texture: Tensor  # (T, 3, 2) atlas pixels (x, y) of each corner
    atlas_points: Tensor  # (SKIN_ROWS, columns, 3) the mean head's surface under each skin texel
    atlas_lip: Tensor  # (SKIN_ROWS, columns) 0..1
    eye: Tensor  # (T,) bool
    eye_centres: Tensor  # (2, 3), image left first
    landmarks: tuple[Tensor, ...]  # vertices whose mean is each of the five landmarks
    shadow: Tensor  # (V, 16) how much light reaches a vertex: weights of `light_basis`
    openness: Tensor  # (V,) share of the sky a vertex sees, 0..1


def light_basis(direction: Tensor) -> Tensor:
    """All monomials of degree 2 and 3 of unit vectors (..., 3) -> (..., 16).

    On the sphere they span what spherical harmonics up to degree 3 span.
    """
    x, y, z = direction.unbind(-1)
    return torch.stack([x * x, y * y, z * z, x * y, x * z, y * z, x**3, y**3, z**3, x * x * y,
                        x * x * z, y * y * x, y * y * z, z * z * x, z * z * y, x * y * z], -1)


def unroll(points: Tensor) -> Tensor:
    """Points of the mean head -> atlas pixels (x, y): azimuth and height, front half wider."""
    columns = ATLAS[1] - 1
    azimuth = torch.atan2(points[..., 0], 0.02 - points[..., 1]) / torch.pi  # -1..1, front 0
    bent = torch.where(azimuth.abs() < 0.5, azimuth * FRONT * 2,
                       azimuth.sign() * (FRONT + (azimuth.abs() - 0.5) * (1 - FRONT) * 2))
    row = (0.148 - points[..., 2]) / (0.148 + 0.120)  # z from chin and neck to crown, metres
    return torch.stack([(bent + 1) / 2 * columns, row * (SKIN_ROWS - 1)], -1)


def _texture(mean, faces, eye, inner, eye_centres) -> Tensor:
    corners = mean[faces]  # (T, 3, 3)
    skin = unroll(corners)
    # A triangle that crosses the seam at the back takes its corners from one side.
    wide = skin[..., 0].amax(1) - skin[..., 0].amin(1) > ATLAS[1] / 2
    skin[wide, :, 0] = skin[wide, :, 0].amax(1, keepdim=True)
    row, column, side = EYE_PATCH
    centre = eye_centres[(corners[..., 0] > 0).long()]
    offset = (corners - centre) / 0.016  # the eyeball's radius in metres
    patch = torch.stack([column + side / 2 + offset[..., 0] * (side / 2 - 2),
                         row + side / 2 - offset[..., 2] * (side / 2 - 2)], -1)
    texture = torch.where(eye[:, None, None], patch, skin)
    for (row, column, side), where in ((MOUTH_PATCH, inner & (corners[:, 0, 2] < 0)),
                                       (LID_PATCH, inner & (corners[:, 0, 2] >= 0))):
        middle = torch.tensor([column + side / 2, row + side / 2]).expand_as(texture)
        texture = torch.where(where[:, None, None], middle, texture)
    return texture


@functools.cache
def load_head(device: str = "cpu") -> Head:
    """Read data/head.safetensors. Raises FileNotFoundError that says how to make it."""
    if not HEAD_FILE.exists():
        raise FileNotFoundError(f"{HEAD_FILE} is missing; it ships with the repository "
                                "(git checkout data/) and scripts/export_head.py rebuilds it")
    try:
        with safe_open(HEAD_FILE, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            raw = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{HEAD_FILE} is damaged ({error}); restore it with "
                         "`git checkout data/head.safetensors`") from None
    mean, faces = raw["mean"], raw["faces"].long().flip(1)
    eye, inner = raw["eye"], raw["cavity"] | raw["tongue"]
    eye_vertices = faces[eye].unique()
    whole = [mean[eye_vertices[mean[eye_vertices, 0] * s > 0]] for s in (-1, 1)]
    y = torch.stack([w[:, 1].min() for w in whole]).mean() + 0.016
    eye_centres = torch.stack([
        torch.stack([(w[:, 0].min() + w[:, 0].max()) / 2, y, (w[:, 2].min() + w[:, 2].max()) / 2])
        for w in whole])
    texture = _texture(mean, faces, eye, inner, eye_centres)
    skin = ~(eye | inner)
    points, lip = _under_texels(mean, faces[skin], texture[skin], raw["lip"].float())
    head = Head(
        mean=mean,
        directions=dict(zip(facts["directions"], raw["directions"].float(), strict=True)),
        components=raw["components"].float(),
        expressions=dict(zip(facts["expressions"], raw["expressions"].float(), strict=True)),
        faces=faces, texture=texture,
        atlas_points=points, atlas_lip=lip, eye=eye, eye_centres=eye_centres,
        landmarks=_landmarks(mean, faces, eye, skin, raw["lip"].float()),
        shadow=raw["shadow"].float(), openness=raw["openness"].float().clamp(min=_MOUTH_LIGHT))
    head = _with_teeth(head)
    return head if device == "cpu" else _to(head, device)


def _to(head: Head, device: str) -> Head:
    move = lambda v: v.to(device) if isinstance(v, Tensor) else (  # noqa: E731
        {k: t.to(device) for k, t in v.items()} if isinstance(v, dict)
        else tuple(t.to(device) for t in v))
    return Head(**{name: move(value) for name, value in vars(head).items()})


def _under_texels(mean, faces, texture, lip) -> tuple[Tensor, Tensor]:
    """Rasterise the skin in texture space, the outermost surface on top."""
    corners = texture.reshape(1, -1, 2)  # every corner a vertex of its own
    own = torch.arange(corners.shape[1]).reshape(-1, 3)
    flipped = own[:, [0, 2, 1]]
    both = torch.cat([own, flipped])  # the unrolling may mirror a triangle
    flat = faces.reshape(-1)
    depth = -(mean[flat, :2] - torch.tensor([0, 0.02])).norm(dim=-1)[None]
    seen = rasterise(corners, depth, both, SKIN_ROWS, ATLAS[1])
    values = torch.cat([mean[flat], lip[flat, None]], 1)[None]
    out = interpolate(values, both, seen, corners)[0]
    return _fill_gaps(out, seen[0] >= 0)


def _fill_gaps(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Grow known texels into unknown ones, so that no seam shows."""
    image, mask = values.permute(2, 0, 1)[None], known[None, None].float()
    image = image * mask
    for _ in range(max(values.shape[:2])):
        if mask.all():
            break
        total = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
        count = torch.nn.functional.avg_pool2d(mask, 3, 1, 1)
        grown = torch.where(count > 0, total / count.clamp(min=1e-6), 0)
        image, mask = torch.where(mask > 0, image, grown), (count > 0).float()
    out = image[0].permute(1, 2, 0)
    return out[..., :3].contiguous(), out[..., 3].contiguous()


def _landmarks(mean, faces, eye, skin, lip) -> tuple[Tensor, ...]:
    """Vertex sets: both eyes, nose tip, mouth corners; image left first."""
    eyes = faces[eye].unique()
    eyes = eyes[mean[eyes, 1] < -0.025]  # the front of the eyeballs
    left, right = eyes[mean[eyes, 0] < 0], eyes[mean[eyes, 0] > 0]
    surface = faces[skin].unique()
    middle = surface[mean[surface, 0].abs() < 0.003]
    tip = mean[middle[mean[middle, 1].argmin()]]
    # The template's nose lies halfway between eyes and mouth, above the foremost vertex: the mean
    # of the midline up to 18 mm above that vertex falls there.
    above = mean[middle, 2] - tip[2]
    nose = middle[(above >= 0) & (above < 0.018) & (mean[middle, 1] < tip[1] + 0.02)]
    lips = (lip > 0.5).nonzero()[:, 0]
    order = lips[mean[lips, 0].argsort()]
    return left, right, nose, order[:4], order[-4:]


def _with_teeth(head: Head) -> Head:
    """The head with a row of upper teeth, which the asset lacks: 26 vertices, 24 triangles more.

    The upper jaw carries them, so no expression moves them; on another head they stay behind its
    lip. Lengths are our choice: the arch is an adult's, 49 mm wide.
    """
    mean = head.mean
    arc = torch.linspace(-1.1, 1.1, _PLACES)  # radians round the middle of the dental arch
    row, column, side = MOUTH_PATCH
    points, texels = [], []
    for height, line in (_GUM, _EDGE):
        bent = height + (0.0015 * arc.square() if line > 2 else 0 * arc)  # molars end higher
        points.append(torch.stack([0.0245 * arc.sin(), -0.0120 - 0.0325 * arc.cos(), bent], -1))
        texels.append(torch.stack([column + side / 2 + 27 * arc, (row + line) + 0 * arc], -1))
    points, texels = torch.cat(points), torch.cat(texels)
    k = torch.arange(_PLACES - 1)
    quads = torch.cat([torch.stack([k, k + 1, k + _PLACES + 1], -1),
                       torch.stack([k, k + _PLACES + 1, k + _PLACES], -1)])
    lip = ((mean[:, 0].abs() < 0.026) & (mean[:, 2] > -0.0425) & (mean[:, 2] < -0.031)
           & (mean[:, 1] < -0.036)).nonzero()[:, 0]
    share = torch.exp(-((points[:, :1] - mean[lip, 0]) / 0.006) ** 2)
    share = share / share.sum(1, keepdim=True)  # (26, lip vertices)

    def grow(values: Tensor, scale: float = 1.0) -> Tensor:
        return torch.cat([values, scale * (share @ values[..., lip, :])], -2)

    return replace(
        head, mean=torch.cat([mean, points]), faces=torch.cat([head.faces, quads + len(mean)]),
        directions={name: grow(value) for name, value in head.directions.items()},
        components=grow(head.components),
        expressions={name: torch.cat([value, value.new_zeros(len(points), 3)])
                     for name, value in head.expressions.items()},
        texture=torch.cat([head.texture, texels[quads]]),
        eye=torch.cat([head.eye, torch.zeros(len(quads), dtype=torch.bool)]),
        shadow=grow(head.shadow, 0.7), openness=torch.cat([head.openness, torch.full((26,), 0.35)]))
