"""From light to pixel values: exposure, lens, tone curve, noise, JPEG.

Light is linear, pixel values are 0..255. Pictures are worked on one by one with sums and products
written out, so a picture's bytes do not depend on its batch or on the number of threads.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear sRGB light, ITU-R BT.709
LUMA = (0.299, 0.587, 0.114)  # of encoded values: ITU-R BT.601, which JPEG and grey pictures use
MID = 0.22  # linear light that metered skin is brought to, a little over an 18 % grey card
LENS = 0.5  # least blur, sigma in picture pixels: no lens and sensor are sharper than a pixel
_KNEE, _WHITE, _CEILING = 0.3, 0.95, 0.98  # straight up to here; limits of light, of a colour
_LEVELS = 4096  # of the encoding table: steps of 0.06 grey levels
_TILE = 592  # 3 x 592 x 592 is about a million Gaussians
# ITU-T T.81, Annex K, tables K.1 and K.2: quantisation of brightness and of colour.
_TABLES = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
     14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
     18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
    [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
     24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99] + [99] * 32])


def meter(colour: Tensor, face: Tensor) -> Tensor:
    """Mean luminance of the skin, of the picture's middle where under 0.5 % of it is skin.

    colour: (3, H, W) linear; face: (1, H, W) cover 0..1.   Returns a number, linear.
    """
    fine = colour[:, ::2]  # every other row: half the work
    weight = face[0, ::2]
    h, w = weight.shape
    middle = torch.zeros_like(weight)
    middle[h // 4:h - h // 4, w // 4:w - w // 4] = 1
    # Rows first: a sum over all at once is split among threads and rounds differently.
    enough = weight.sum(1).sum() > 0.005 * h * w
    weight = torch.where(enough, weight, middle)
    return (_mixed(fine, LUMINANCE) * weight).sum(1).sum() / weight.sum(1).sum()


def develop(colour: Tensor, face: Tensor, images: list[dict], rngs: list[torch.Generator],
            scale: float = 1.75) -> Tensor:
    """What the camera makes of light: (B, 3, H, W) linear -> (B, 3, H, W) float 0..255.

    face: (B, 1, H, W) cover 0..1 of bare skin, which the exposure is metered on: skin of every
    tone comes out equally bright.   scale: picture pixels to one pixel of image["blur"].
    Of an image: exposure (factor), blur (sigma), contrast (factor), gamma (1 is sRGB's),
    grey 0/1, noise (sd, 0..1 scale), jpeg (quality, 0 for none).
    """
    out = torch.empty_like(colour)
    for k, (image, rng) in enumerate(zip(images, rngs, strict=True)):
        light = colour[k] * (image["exposure"] * MID / meter(colour[k], face[k]).clamp(min=1e-4))
        light = tone(blur(light, max(LENS, image["blur"] * scale)))
        table = encoding(image["gamma"], image["contrast"]).to(light.device)
        index = (light.sqrt() * (_LEVELS - 1) + 0.5).to(torch.int32)
        picture = table.index_select(0, index.flatten()).reshape(light.shape)
        if image["grey"] > 0:
            picture = _mixed(picture, LUMA)[None]
        picture = (picture + grain(picture, image["noise"], rng)).clamp(0, 255)
        out[k] = picture
        if image["jpeg"] > 0:
            out[k] = jpeg(out[k], image["jpeg"])
    return out


def blur(picture: Tensor, sigma: float) -> Tensor:
    """Gaussian blur: (C, H, W), sigma in pixels -> (C, H, W); the border is repeated."""
    radius = int(2.5 * sigma + 0.5)
    if radius == 0:
        return picture
    taps = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(radius + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    picture = F.pad(picture[None], (radius,) * 4, mode="replicate")[0]
    for axis in (1, 2):
        n = picture.shape[axis] - 2 * radius
        out = picture.narrow(axis, radius, n) * (taps[0] / total)
        for step in range(1, radius + 1):
            pair = picture.narrow(axis, radius - step, n) + picture.narrow(axis, radius + step, n)
            out += pair.mul_(taps[step] / total)
        picture = out
    return picture


def tone(light: Tensor) -> Tensor:
    """A film's shoulder: (3, H, W) linear, 0 to any -> 0..0.98, in which nothing is burnt out.

    Luminance Y runs straight to 0.3, then bends as u / sqrt(1 + u^2) towards 0.95. The colour
    keeps its hue; where a channel would pass the ceiling it fades to white, as film does.
    """
    before = _mixed(light, LUMINANCE)
    room = _WHITE - _KNEE
    u = ((before - _KNEE) / room).clamp_(min=0)
    after = before.clamp(max=_KNEE) + room * u / (u * u + 1).sqrt_()
    light = light * (after / before.clamp(min=1e-6))
    over = (light.amax(0) - after) / (_CEILING - after)  # colourfulness to the room left for it
    keep = 1 / (over * over + 1).sqrt_()
    return (light - after).mul_(keep).add_(after).clamp_(0, 1)


def encoding(gamma: float, contrast: float) -> Tensor:
    """The table from the square root of light, 4096 steps of 0..1, to pixel values 0..255.

    v = light^(gamma / 2.2); then contrast about v of MID. More than 1 bends so that black stays
    black and white white, less than 1 lifts the black as haze does.
    """
    v = (torch.arange(_LEVELS) / (_LEVELS - 1)) ** (2 * gamma / 2.2)
    mid = MID ** (gamma / 2.2)
    if contrast <= 1:
        return 255 * (mid + contrast * (v - mid))
    side = torch.where(v > mid, 1 - mid, -mid)
    d = (v - mid) / side  # 0 at mid grey, 1 at either end; the bend below runs 0..1 as well
    return 255 * (mid + side * contrast * d / (1 + (contrast**4 - 1) * d**4) ** 0.25)


def grain(picture: Tensor, sd: float, rng: torch.Generator) -> Tensor:
    """Sensor noise for a picture (C, H, W) of 0..255: sd (0..1) at mid grey, 1.4 sd in black."""
    C, H, W = picture.shape
    tile = _tile(picture.device, max(_TILE, H + 256, W + 256))
    top, left = (int(torch.randint(tile.shape[1] - n, (), generator=rng)) for n in (H, W))
    strength = picture * (-0.8 * sd) + 1.4 * 255 * sd
    return strength.mul_(tile[:C, top:top + H, left:left + W])


@lru_cache(maxsize=4)
def _tile(device: torch.device, side: int) -> Tensor:
    """Gaussians of sd 1, made once: (3, side, side). Half the variance is brightness, the rest
    colour; next neighbours correlate by 0.29, as after a sensor's colour filter."""
    values = torch.randn(4, side + 2, side + 2, generator=torch.Generator().manual_seed(0))
    for axis in (1, 2):
        a, b, c = (values.narrow(axis, k, side) for k in range(3))
        values = (b + 0.15 * (a + c)) / math.sqrt(1 + 2 * 0.15**2)
    return ((values[:3] + values[3:]) / math.sqrt(2)).to(device)


def jpeg(picture: Tensor, quality: float) -> Tensor:
    """What JPEG loses (ITU-T T.81, JFIF): (3, H, W) 0..255 -> the same; no entropy coding.

    quality: 1..100, as libjpeg scales the tables of Annex K.   Raises ValueError outside.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be 1 to 100, not {quality}")
    _, H, W = picture.shape
    percent = 5000 // int(quality) if quality < 50 else 200 - 2 * int(quality)
    tables = ((_TABLES * percent + 50) // 100).clamp(1, 255).float().to(picture.device)
    full = F.pad(picture[None], (0, -W % 16, 0, -H % 16), mode="replicate")[0]
    y = _mixed(full, LUMA)
    colour = torch.stack([(full[2] - y) * 0.564334, (full[0] - y) * 0.713267])  # Cb, Cr less 128
    half = colour[:, ::2] + colour[:, 1::2]
    half = (half[..., ::2] + half[..., 1::2]) * 0.25
    y = _quantised(y[None] - 128, tables[0])[0] + 128
    cb, cr = enlarge(_quantised(half, tables[1]))
    red, blue = y + 1.402 * cr, y + 1.772 * cb  # the inverse of the above, JFIF 1.02
    green = y - 0.344136 * cb - 0.714136 * cr
    return torch.stack([red, green, blue])[:, :H, :W].clamp(0, 255)


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    """Planes (C, H, W) through the 8 x 8 cosine transform, rounded to the table's steps."""
    C, H, W = planes.shape
    basis = _cosines(planes.device)
    blocks = planes.reshape(C, H // 8, 8, W // 8, 8).transpose(2, 3).reshape(-1, 64)
    levels = (blocks @ basis.T / table).round_().mul_(table)
    return (levels @ basis).reshape(C, H // 8, W // 8, 8, 8).transpose(2, 3).reshape(C, H, W)


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> Tensor:
    """The two-dimensional orthonormal DCT of a block as one matrix (64, 64)."""
    k, n = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    line = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    line[0] /= math.sqrt(2)
    return torch.kron(line, line).float().to(device)


def enlarge(small: Tensor) -> Tensor:
    """Twice as large, bilinear: (..., H, W) -> (..., 2H, 2W)."""
    for axis in (-2, -1):
        n = small.shape[axis]
        size = list(small.shape)
        size[axis] *= 2
        out = small.new_empty(size)
        even, odd = out.unflatten(axis, (n, 2)).unbind(axis)
        near, far = small * 0.75, small * 0.25
        torch.add(near.narrow(axis, 1, n - 1), far.narrow(axis, 0, n - 1),
                  out=even.narrow(axis, 1, n - 1))
        torch.add(near.narrow(axis, 0, n - 1), far.narrow(axis, 1, n - 1),
                  out=odd.narrow(axis, 0, n - 1))
        even.select(axis, 0).copy_(small.select(axis, 0))
        odd.select(axis, -1).copy_(small.select(axis, -1))
        small = out
    return small


def _mixed(colour: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """The weighted sum of three channels: (3, H, W) -> (H, W)."""
    return colour[0] * weights[0] + colour[1] * weights[1] + colour[2] * weights[2]
