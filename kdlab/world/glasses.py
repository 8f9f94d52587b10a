"""Glasses, as a mesh on the mean head.

Sizes are metres, in the axes of head.py; where no source is named they are ours, taken from
ordinary spectacles.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.world.head import Head
from kdlab.world.worn import LENS, SOLID, bind, follow, skin_vertices

RIM, BAR = 24, 4  # points round a lens, corners of a bar
_BRIDGE, _ARM = 5, 6  # places along the bridge and along an arm
FRAME_VERTICES = BAR * (2 * RIM + _BRIDGE + 2 * _ARM)
LENS_VERTICES = 2 * (RIM + 1)
# What each vertex is made of: 0 frame, 1 lens.
GLASSES_TINT = torch.tensor([0] * FRAME_VERTICES + [1] * LENS_VERTICES)
LENS_FACES = 2 * RIM  # the last triangles of the glasses; the rest lets no light through
_VERTEX_DISTANCE = 0.0135  # cornea to lens; opticians fit 12 to 14 mm
_PANTOSCOPIC = math.radians(8)  # the lens's foot leans to the cheek
_CLEARANCE = 0.0015  # of rims and skin at rest


def glasses_points(head: Head, who: dict) -> Tensor:
    """The glasses of an identity on the mean head: (W, 3) metres.

    who["frame"]: "shape" 0 round .. 1 square, "width" and "height" half of a lens, "rim" half
    the width of the bar round it (metres).
    """
    frame = who["frame"]
    device = head.mean.device
    half = torch.tensor([frame["width"], frame["height"]], device=device)
    eye = head.eye_centres
    eye_x, eye_z = (eye[1, 0] - eye[0, 0]) / 2, eye[:, 2].mean()
    middle = eye.mean(0)[0]
    # A bridge of 17 mm or more; a lens wider than the eyes' distance allows goes outwards.
    centre_x = torch.maximum(eye_x, half[0] + frame["rim"] + 0.0085)
    centre_z = eye_z - 0.0015

    turn = torch.arange(RIM, device=device) * (2 * math.pi / RIM)  # from the temple, over the top
    power = 2 / (2 + 2.5 * frame["shape"])
    unit = torch.stack([turn.cos(), turn.sin()], -1)
    unit = unit.sign() * unit.abs().clamp(min=1e-9) ** power
    # The foot is narrower on the nose's side, as noses widen downwards.
    nose = (0.5 - 0.5 * unit[:, 0]) * (-unit[:, 1]).clamp(min=0)
    unit = unit + nose[:, None] * torch.tensor([0.30, 0.0], device=device)
    outline = unit * half + torch.stack([centre_x, centre_z])  # (RIM, 2) x, z
    along = outline.roll(-1, 0) - outline.roll(1, 0)
    outward = F.normalize(torch.stack([along[:, 1], -along[:, 0]], -1), dim=-1)

    front = eye[:, 1].mean() - 0.016 - _VERTEX_DISTANCE  # the eyeball's radius is 16 mm

    def on_front(x, z):
        """The surface both lenses lie in: tilted, and wrapped a little round the face."""
        bow = 0.9 * (x.square() - eye_x**2)
        return torch.stack([x, front + bow - math.tan(_PANTOSCOPIC) * (z - eye_z), z], -1)

    def bar(path, width, depth):
        """Four corners round each place of a path: (P, 3), (P, 3), (P, 3) -> (4 P, 3)."""
        corners = [path + width - depth, path - width - depth,
                   path - width + depth, path + width + depth]
        return torch.stack(corners, 1).reshape(-1, 3)

    rim = frame["rim"]
    deep = torch.tensor([0.0, min(rim, 0.0016), 0.0], device=device)
    wide = torch.stack([outward[:, 0], torch.zeros_like(turn), outward[:, 1]], -1) * rim
    ring = bar(on_front(*outline.unbind(-1)), wide, deep)
    lens = on_front(*torch.cat([outline, outline.mean(0, keepdim=True)]).unbind(-1))

    # The bridge joins the rims' inner sides in a flat arch, a little above the eyes.
    inner = outline[outline[:, 0].argmin(), 0]
    share = torch.linspace(-1, 1, _BRIDGE, device=device)
    height = eye_z + 0.25 * half[1] + 0.0025 * (1 - share**2)
    bridge = bar(on_front(share * inner, height),
                 torch.tensor([0.0, 0.0, rim], device=device), deep)

    # An arm: out from the rim, past the temple, over the ear, down behind it.
    hinge_z = eye_z + 0.42 * half[1]
    outer = (outline[:, 0] * (outline[:, 1] > eye_z)).max()
    start = on_front(outer, hinge_z)
    # Along the temple's skin, then between the skull and the ear, which starts 33 mm up.
    fixed = torch.tensor([[0.0690, -0.024, 0.0], [0.0715, 0.010, 0.0], [0.0745, 0.040, 0.0],
                          [0.0763, 0.056, 0.0], [0.0770, 0.072, 0.0]], device=device)
    fall = torch.tensor([0.0, 0.35, 0.9, 1.0, 0.0], device=device)
    fixed[:, 2] = hinge_z + (0.0365 - hinge_z) * fall
    fixed[-1, 2] = 0.024
    path = torch.cat([start[None], fixed])
    thick = torch.tensor([[0.0, 1.0, 0.0]] + [[1.0, 0.0, 0.0]] * 5, device=device) * 0.0009
    tall = torch.tensor([0.0, 0.0, max(1.2 * rim, 0.0011)], device=device).expand(6, 3)
    # width * depth must turn as on the rims, or the arm would show its inside
    arm = bar(path, tall, thick * torch.tensor([-1.0, 1.0, 1.0], device=device))

    mirror = torch.tensor([-1.0, 1, 1], device=device)
    parts = [ring, ring * mirror, bridge, arm, arm * mirror, lens, lens * mirror]
    shift = torch.stack([middle, torch.zeros_like(middle), torch.zeros_like(middle)])
    return torch.cat(parts) + shift


@functools.cache
def glasses_grid() -> tuple[Tensor, Tensor]:
    """Triangles (F, 3) and texture coordinates (W, 2) of the glasses; lenses last."""
    faces, base = [], 0
    for places, closed, mirrored in ((RIM, True, False), (RIM, True, True),
                                     (_BRIDGE, False, True), (_ARM, False, True),
                                     (_ARM, False, False)):
        faces += _tube(base, places, closed, mirrored)
        base += BAR * places
    for mirrored in (False, True):
        for i in range(RIM):
            triangle = [base + RIM, base + (i + 1) % RIM, base + i]
            faces.append(triangle if not mirrored else triangle[::-1])
        base += RIM + 1
    row, column, rows, columns = SOLID
    corner = torch.arange(FRAME_VERTICES) % BAR
    across = torch.tensor([0.05, 0.95, 0.95, 0.05])[corner]
    solid = torch.stack([torch.full_like(across, column + columns / 4),
                         row + across * (rows - 1)], -1)
    row, column, rows, columns = LENS
    turn = torch.arange(RIM) * (2 * math.pi / RIM)
    disc = torch.cat([torch.stack([turn.cos(), -turn.sin()], -1), torch.zeros(1, 2)])
    middle = torch.tensor([column + (columns - 1) / 2, row + (rows - 1) / 2])
    left = disc * torch.tensor([-1.0, 1])  # the light comes from one side for both lenses
    lens = torch.cat([middle + disc * (columns / 2 - 1), middle + left * (columns / 2 - 1)])
    return torch.tensor(faces), torch.cat([solid, lens])


def _tube(base: int, places: int, closed: bool, mirrored: bool) -> list[list[int]]:
    """The four sides of a bar of `places` cross-sections."""
    out = []
    for i in range(places if closed else places - 1):
        here, there = base + BAR * i, base + BAR * ((i + 1) % places)
        for a in range(BAR):
            b = (a + 1) % BAR
            out += [[here + a, here + b, there + b], [here + a, there + b, there + a]]
    return [t[::-1] for t in out] if mirrored else out


def bound_glasses(head: Head, who: dict, shape: Tensor | None = None
                  ) -> tuple[Tensor, Tensor, Tensor]:
    """An identity's glasses ready for `follow`: points (W, 3), index (W, k), weight (W, k).

    A frame is stiff: every point follows all of a few places that no expression moves, eyeballs,
    bridge of the nose, temples and roots of the ears.   shape: (V, 3), the identity's neutral
    head; with it the glasses sit further out where its brow or nose would reach into them.
    """
    points = glasses_points(head, who)
    skin = skin_vertices(head.faces, head.texture)
    fixed = [[0.0, -0.045, 0.021], *([side * x, y, z] for side in (-1, 1)
                                     for x, y, z in ((0.067, 0.010, 0.036), (0.073, 0.050, 0.033)))]
    ball = [[x + aside, -0.030, z] for x, _, z in head.eye_centres.tolist()
            for aside in (-0.01, 0.01)]
    anchors = torch.cat([bind(head, torch.tensor(places, device=skin.device), where, 1)[0][:, 0]
                         for places, where in ((fixed, skin),
                                               (ball, head.faces[head.eye].unique()))])
    index, weight = bind(head, points, anchors, len(anchors))
    if shape is not None:
        front = follow(points, index, weight, shape[None], head.mean)[0]
        front = front[:BAR * (2 * RIM + _BRIDGE)]
        skin = shape[skin]
        low, high = front.aminmax(dim=0)  # no skin is near that lies beyond
        inside = (skin > low - 0.01) & (skin < high + 0.01)
        skin = skin[inside[:, 0] & inside[:, 2] & (skin[:, 1] < -0.025)]
        apart = (front[:, None, 0] - skin[:, 0]) ** 2 + (front[:, None, 2] - skin[:, 2]) ** 2
        nearest = torch.where(apart < 0.004**2, skin[:, 1], 1.0).amin(1)  # a vertex apart
        push = (front[:, 1] - nearest + _CLEARANCE).amax().clamp(0, 0.012)
        # The ends of the arms stay on the ears.
        share = ((0.045 - points[:, 1]) / 0.075).clamp(0, 1)
        points = points - share[:, None] * push * torch.tensor([0.0, 1, 0], device=push.device)
    return points, index, weight
