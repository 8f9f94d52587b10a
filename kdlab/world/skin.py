"""The skin of a rendered face: painted once for an identity.

Everything is painted at the points of the mean head under the texels (metres, see head.py), so a
brow stays on its brow ridge whatever the shape. Colours in the atlas are linear light
(sRGB ** 2.2): they are multiplied by light as they are, and no pixel needs a power. Positions,
widths and strengths are our choice by eye on the mean head; one texel is about 1 mm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.world.ageing import bump, ramp, rows_between, wrinkles
from kdlab.world.head import (
    ATLAS,
    EYE_PATCH,
    LID_PATCH,
    MOUTH_PATCH,
    SKIN_ROWS,
    Head,
)

GAMMA = 2.2  # sRGB ** GAMMA is linear light, closely enough
CHANNELS = ("red", "green", "blue", "gloss", "hair", "beard", "wrinkle")
_BLOOD = (0.16, 1.0, 0.85)  # what blood near the surface takes from red, green and blue light
_MELANIN = (0.55, 0.85, 1.0)  # what pigment takes


def noise(rng: torch.Generator, rows: int, columns: int, size: tuple[int, int]) -> Tensor:
    """Smooth noise, sd about 1: (rows, columns) random numbers stretched to `size`."""
    values = torch.randn(1, 1, rows, columns, generator=rng)
    return F.interpolate(values, size, mode="bicubic", align_corners=True)[0, 0]


def paint(head: Head, who: dict, rng: torch.Generator, scalp: Tensor) -> Tensor:
    """The atlas of an identity: (7, rows, columns), all 0..1; see `CHANNELS`.

    who: factors of the identity.   scalp: (SKIN_ROWS, columns) 0..1, cover by hair at
    head.atlas_points.   red, green, blue: linear light of a young adult without hair. hair: cover
    of brows and scalp. beard: cover of beard and moustache. wrinkle: lines and spots of full age.
    """
    device, size = head.mean.device, (SKIN_ROWS, ATLAS[1])
    x, y, z = head.atlas_points.unbind(-1)
    eye_x, eye_z = (float(head.eye_centres[:, k].abs().mean()) for k in (0, 2))
    coarse, medium, locks, warp_x, warp_z = (
        noise(rng, *shape, size).to(device)
        for shape in ((14, 20), (80, 120), (40, 192), (16, 24), (16, 24)))
    fine = torch.randn(size, generator=rng).to(device)
    # In wandering coordinates no line is straight and no two sides are alike.
    warp_x, warp_z = 0.0010 * warp_x, 0.0010 * warp_z
    at = {"x": x, "y": y, "z": z, "side": x.abs(), "dx": x.abs() - eye_x, "dz": z - eye_z,
          "warp_x": warp_x, "warp_z": warp_z, "lip": head.atlas_lip,
          "coarse": coarse, "medium": medium, "fine": fine}
    tone = (who["skin"].to(device).clamp(0.08, 0.95) ** GAMMA)[:, None, None]
    streaks = torch.rand(256, generator=rng).to(device)
    chances = torch.rand(44, generator=rng).tolist()

    atlas = torch.zeros(7, *ATLAS, device=device)
    skin = atlas[:, :SKIN_ROWS]
    _complexion(skin, at, who, tone, chances[:20])
    hairs = 1 - who["strands"] * (0.3 + 0.4 * locks + 0.2 * fine).clamp(0, 1.5)
    skin[4] = scalp.to(device) * hairs.clamp(0, 1)
    for layer, low, high in ((_lips, -0.062, -0.026), (_lids, 0.010, 0.046),
                             (_brow, 0.026, 0.066), (_beard, -0.112, 0.050)):
        window = rows_between(low, high)
        layer(skin[(slice(None), *window)], {k: v[window] for k, v in at.items()}, who, tone,
              streaks)
    wrinkles(skin[6], at, chances[20:])
    for (row, column, side), patch in ((EYE_PATCH, _eye(who, rng, device)),
                                       (MOUTH_PATCH, _mouth(device)),
                                       (LID_PATCH, _through(tone, _BLOOD, 0.4))):
        atlas[:3, row:row + side, column:column + side] = patch
        atlas[3, row:row + side, column:column + side] = 0.3
    return atlas.clamp_(0, 1)


def _through(colour: Tensor, taken: tuple, amount) -> Tensor:
    """A colour (3, 1, 1) seen through an amount (number or map) of blood or pigment."""
    return colour * (1 - colour.new_tensor(taken)[:, None, None] * amount)


def _cover(skin: Tensor, where: Tensor, tint: Tensor, gloss: float) -> None:
    """Lay a colour (3, 1, 1) or (3, rows, columns) over the skin, in place."""
    skin[:3] += (tint - skin[:3]) * where
    skin[3] += (gloss - skin[3]) * where


def _complexion(skin, at, who, tone, chances) -> None:
    """Bare skin: blood near the surface, pigment, pores, freckles and moles."""
    face = rows_between(-0.104, 0.110)
    y, z, side, dx, dz = (at[k][face] for k in ("y", "z", "side", "dx", "dz"))
    front = ramp(0.01 - y, 0.005)
    cheek = bump((side - 0.044) / 0.019, (z + 0.010) / 0.017) * front
    nose = bump(side / 0.014, (z + 0.012) / 0.013)
    ear = ramp(side - 0.073, 0.002) * ramp(y - 0.005, 0.003)
    chin = bump(side / 0.016, (z + 0.075) / 0.013)
    socket = bump(dx / 0.018, (dz + 0.003) / 0.013) * front
    brow = bump(side / 0.035, (z - 0.068) / 0.016)

    # The neck under the chin is squeezed into few rows, where noise would be streaks.
    even = 0.25 + 0.75 * ramp(at["z"] + 0.085, 0.004)
    coarse, medium, fine = (at[k] * even for k in ("coarse", "medium", "fine"))
    blood = who["redness"] * (0.30 * coarse + 0.10 * medium)
    blood[face] += who["redness"] * (1.4 * cheek + 1.4 * nose + 0.4 * chin + 1.3 * ear)
    pigment = who["mottle"] * (1.2 * coarse.roll(7, 0) + 0.5 * medium) + 0.018 * fine
    pigment[face] += 0.018 * (cheek + nose) * fine[face] + 0.9 * who["socket"] * socket
    # A shaved jaw is darker too.
    shaved = 0.07 * (not who["female"] and who["age"] >= 18)
    pigment[face] += shaved * ramp(-0.030 - z, 0.008) * front
    # Freckles keep to the band over cheeks and nose.
    dots = ((0.7 * medium + fine)[face] > 1.45) & (cheek + nose > 0.15)
    dots = dots * (0.26 + 0.12 * coarse[face]).clamp(0.08, 0.45) * min(who["freckles"], 1.0)
    pigment[face] += 1.5 * dots
    for k in range(0, 20, 4):  # on average not quite three moles, anywhere on face and neck
        row, column, radius, dark = chances[k:k + 4]
        if dark > 0.45:
            row, column = int(60 + 170 * row), int(70 + 244 * column)
            step = torch.arange(-4, 5, device=tone.device) / (0.6 + 0.9 * radius**2)
            pigment[row - 4:row + 5, column - 4:column + 5] += dark * bump(step[:, None], step)
    for k in range(3):
        skin[k] = ((1 - _BLOOD[k] * blood) * (1 - _MELANIN[k] * pigment)).clamp(0.1, 1.3) * tone[k]
    skin[2][face] *= 1 - 0.10 * brow  # yellower where there is fat and little blood
    skin[3] = 0.20 + 0.03 * fine
    skin[3][face] += (0.25 * nose + 0.17 * brow + 0.12 * cheek) * front


def _lips(skin, at, who, tone, streaks) -> None:
    z, side = at["z"], at["side"]
    red = tone * who["lip"].to(tone.device)[:, None, None] ** GAMMA
    red = _through(red, (0.04, 0.05, -0.20), 1 - 0.5 * who["makeup"])  # pinker than the skin
    red = _through(red, (0.0, 0.45, 0.20), who["makeup"])
    folds = streaks[(at["x"] * 900 + 128).long().clamp(0, 255)]  # fine upright folds, 1.1 mm
    line = z + 0.0425 + 0.10 * side  # above the seam positive
    red = red * (0.93 + 0.14 * folds - 0.16 * (line > 0)) * (1 + 0.04 * at["medium"])
    _cover(skin, at["lip"] * (0.66 + 0.22 * who["makeup"]), red, 0.42 + 0.2 * who["makeup"])
    seam = bump(line / 0.0011, side / 0.026) * (at["y"] < -0.02)
    _cover(skin, 0.55 * seam, red * 0.15, 0.1)


def _lids(skin, at, who, tone, streaks) -> None:
    """Lashes and the crease of the upper lid."""
    dx, dz, front = at["dx"], at["dz"], at["y"] < 0.005
    up = ramp(dz - 0.0005, 0.0012)
    rim = ((dx / 0.0130) ** 2 + (dz / 0.0064) ** 2).sqrt()  # 1 on the edge of the opening
    lash = bump((rim - 0.98) / 0.17, dx / 0.02) * front
    # Lashes are longer towards the temple.
    lash = lash * (up * (0.62 + 0.30 * who["makeup"]) * (1 + 12 * dx)
                   + (1 - up) * (0.14 + 0.22 * who["makeup"]))
    _cover(skin, lash.clamp(0, 1), tone * 0.10 + 0.004, 0.1)
    single = float(who["ancestry"][1])  # many East Asian lids have a low, faint crease
    crease = ((dx / (0.0165 - 0.001 * single)) ** 2
              + ((dz - 0.0005) / (0.0112 - 0.0025 * single)) ** 2).sqrt()
    crease = bump((crease - 1) / 0.085, (dx - 0.001) / 0.018) * up * front
    _cover(skin, (0.42 - 0.22 * single) * crease, tone * 0.25, 0.1)


def _brow(skin, at, who, tone, streaks) -> None:
    """Strokes that rise at the nose and lie flat at the temple."""
    brow, dx, dz = who["brow"], at["dx"], at["dz"]
    along = (dx + 0.020 + brow["inner"]) / (0.042 + brow["outer"] + brow["inner"])
    inside = along.clamp(0, 1)
    line = 0.0185 + brow["height"] + brow["tilt"] * dx * 0.5 - brow["arch"] * dx**2
    across = (dz + 0.0005 * at["medium"] - line) / (brow["width"] * (1.10 - 0.70 * inside)
                                                       * (0.7 + 0.3 * (6 * inside).clamp(0, 1)))
    # A hair's number: constant along a stroke, which leans more and more outwards.
    place = (dx + 0.03) * 800 - across.clamp(-2, 2) * (0.4 + 4.0 * inside) + 97 * (at["x"] > 0)
    low = place.floor()
    share, low = place - low, low.long()
    hair = streaks[low % 256] * (1 - share) + streaks[(low + 1) % 256] * share
    body = torch.exp(-(across.abs() / (0.85 + 0.4 * hair)) ** 3)
    ends = ramp(along - 0.07, 0.035) * ramp(0.96 - along, 0.035) * (at["y"] < -0.005)
    cover = (brow["density"] * body * ends * (0.72 + 0.4 * hair)).clamp(0, 1)
    # Brows grey later than the scalp: a part keeps the young colour.
    young = (who["hair"].to(tone.device) ** GAMMA)[:, None, None]
    _cover(skin, 0.4 * cover, 0.7 * young, 0.1)
    torch.maximum(skin[4], 0.9 * cover, out=skin[4])


def _beard(skin, at, who, tone, streaks) -> None:
    """Stubble or a short beard on cheeks, jaw, chin, neck and upper lip."""
    if who["beard"] + who["moustache"] == 0:
        return
    y, side, z = at["y"], at["side"] + at["warp_x"], at["z"] + at["warp_z"]
    cheek = -0.036 - who["beard_line"] + 22 * (side - 0.026).clamp(min=0) ** 2
    jaw = ramp(cheek - z, 0.0035) * ramp(0.015 - y, 0.003) * ramp(z + 0.104, 0.004)
    within = bump(side / 0.021, (z + 0.040) / 0.019)  # the mouth and its surroundings
    jaw = torch.maximum(jaw * (1 - within), bump(side / 0.012, (z + 0.070) / 0.013))
    jaw = jaw * (1 - 0.6 * bump((side - 0.014) / 0.006, (z + 0.059) / 0.005))  # bare by the chin
    burn = ramp(side - 0.069, 0.002) * ramp(0.010 - y, 0.003) * ramp(0.036 - z, 0.003)
    lip = ramp(0.027 - side, 0.0022) * ramp(-0.0225 - 0.25 * side - z, 0.0012)
    lip = lip * ramp(z + 0.043, 0.002) * (1 - 0.35 * bump(side / 0.003, (z + 0.028) / 0.01))
    join = bump((side - 0.029) / 0.0045, (z + 0.047) / 0.015)  # round the corners of the mouth
    where = torch.maximum(torch.maximum(jaw, burn * 0.8) * who["beard"],
                          lip * (y < -0.02) * who["moustache"])
    where = torch.maximum(where, join * min(who["beard"], who["moustache"]))
    grain = 0.72 + 0.22 * at["fine"] + 0.10 * at["medium"]
    skin[5] = (where * (1 - at["lip"]).clamp(0, 1) ** 2 * grain).clamp(0, 1)


def _eye(who, rng, device) -> Tensor:
    """Iris of 11.6 mm with limbal ring and fibres, pupil, sclera; (3, side, side)."""
    side = EYE_PATCH[2]
    step = (torch.arange(side, device=device) + 0.5 - side / 2) / (side / 2 - 2) * 0.016  # metres
    v, u = torch.meshgrid(step, step, indexing="ij")
    radius = (u * u + v * v).sqrt()
    fibres = noise(rng, 1, 72, (1, 256))[0].to(device)
    fibres = fibres[((torch.atan2(v, u) / torch.pi + 1) * 127.9).long()]
    iris = (who["iris"].to(device) ** GAMMA)[:, None, None]
    collar = torch.exp(-((radius - 0.0028) / 0.0009) ** 2)  # a lighter, warmer ring round the pupil
    warm = iris.new_tensor([0.7, 0.4, 0.1])[:, None, None]
    iris = iris * (1 + 0.28 * fibres) * (1 + collar * warm)
    iris = iris * (1 - 0.75 * torch.sigmoid((radius - 0.0053) / 0.0003)) + 0.003
    iris = iris * torch.sigmoid((radius - 0.0021) / 0.00022) + 0.001
    pink = (u.abs() / 0.014).clamp(0, 1) ** 2
    white = _through(iris.new_tensor([0.50, 0.475, 0.45])[:, None, None], (0.06, 0.30, 0.28), pink)
    white = white * (1 - 0.10 * (radius / 0.016) ** 2)
    eye = white + (iris - white) * torch.sigmoid((0.0058 - radius) / 0.00028)
    return eye * (1 - 0.55 * torch.sigmoid((-0.0022 - v) / 0.0011))  # shade of the upper lid


def _mouth(device) -> Tensor:
    """Dark inside; in the top quarter the upper teeth, a column a millimetre; (3, side, side)."""
    side = MOUTH_PATCH[2]
    row = torch.arange(side, device=device)[:, None] + 0.5
    column = (torch.arange(side, device=device) + 0.5 - side / 2).abs()
    inside = row.new_tensor([0.035, 0.006, 0.006])[:, None, None]
    # From the middle line outwards: two incisors, the canine, premolars and a molar, metres / 1000.
    gaps = column.new_tensor([0.0, 8.0, 14.5, 21.5, 27.5, 33.0])
    between = (column[:, None] - gaps).abs().amin(1)
    shade = (1 - 0.45 * torch.exp(-(between / 0.7) ** 2)) * (1 - (column / 34) ** 2)
    tooth = row.new_tensor([0.58, 0.53, 0.44])[:, None, None] * shade.clamp(min=0)
    gum = row.new_tensor([0.30, 0.09, 0.08])[:, None, None]
    tooth = tooth + (gum - tooth) * ramp(3.0 + 0.8 * torch.cos(between) - row, 0.4)
    return inside + (tooth - inside) * ramp(side / 4 - row, 0.3)
