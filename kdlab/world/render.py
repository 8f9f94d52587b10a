"""From factors to pictures: pose, light, z-buffer, texture, camera, crop. Batched, plain torch.

A picture is taken once at 1.75 times the ArcFace crop's resolution, in a frame wide enough for
every crop; the crops are then cut from it by the same five-point alignment that real photographs
go through, with landmarks that are known exactly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.align import TEMPLATES, align, similarity
from kdlab.world.head import EYE_PATCH, Head, light_basis, vertex_normals
from kdlab.world.identity import generator, noise
from kdlab.world.nuisance import rotation
from kdlab.world.raster import at_pixels, corner_values, rasterise

SCALE = 1.75  # picture pixels per pixel of the ArcFace crop
MARGIN = (10, 6)  # ArcFace pixels left/right and above/below that the other crops may need
WIDTH, HEIGHT = round((112 + 2 * MARGIN[0]) * SCALE), round((124 + 2 * MARGIN[1]) * SCALE)
# Light that enters skin leaves it further on, red furthest: the shadow's edge is soft and warm.
_WRAP = (0.28, 0.14, 0.10)


def pose(head: Head, shapes: Tensor, images: list[dict]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heads as the camera sees them.

    shapes: (B, V, 3) neutral heads.   Returns points (B, V, 2) in picture pixels, depth (B, V)
    metres, vertices (B, V, 3) after expression and rotation, landmarks (B, 5, 2) pixels.
    """
    vertices = []
    for shape, image in zip(shapes, images, strict=True):
        for action, strength in image["expression"].items():
            shape = shape + strength * head.expressions[action]
        vertices.append(shape)
    vertices = torch.stack(vertices)
    turn = rotation(*(torch.tensor([image[k] for image in images]) for k in
                      ("yaw", "pitch", "roll"))).to(vertices.device)
    # Sums written out: a matrix product may round differently for another batch size.
    turned = (vertices[:, :, None] * turn[:, None]).sum(-1)  # (B, V, 3)
    distance = torch.tensor([image["distance"] for image in images], device=turned.device)
    depth = turned[..., 1] + distance[:, None]
    flat = torch.stack([turned[..., 0], -turned[..., 2]], -1) / depth[..., None]
    spots = torch.stack([flat[:, index].mean(1) for index in head.landmarks], 1)
    frame = (TEMPLATES["arcface"] + torch.tensor(MARGIN)) * SCALE
    matrix = similarity(spots, frame.to(flat.device)).to(flat.dtype)
    points = (flat[:, :, None] * matrix[:, None, :, :2]).sum(-1) + matrix[:, None, :, 2]
    marks = (spots[:, :, None] * matrix[:, None, :, :2]).sum(-1) + matrix[:, None, :, 2]
    return points, depth, turned, marks


def illuminate(head: Head, turned: Tensor, images: list[dict]) -> Tensor:
    """Light on every vertex: (B, V, 4), three colours and the highlight, linear."""
    stack = lambda key: torch.tensor([im[key] for im in images], device=turned.device)  # noqa: E731
    normals = vertex_normals(turned, head.faces, head.neighbours)
    light = torch.stack([image["light"] for image in images]).to(turned.device)
    turn = rotation(stack("yaw"), stack("pitch"), stack("roll"))
    in_head = (turn.transpose(1, 2) * light[:, None]).sum(-1)  # the light as the head sees it
    shadow = (head.shadow * light_basis(in_head)[:, None]).sum(-1).clamp(0, 1)  # (B, V)
    facing = (normals * light[:, None]).sum(-1)
    wrap = torch.tensor(_WRAP, device=turned.device)
    key = ((facing[..., None] + wrap) / (1 + wrap)).clamp(min=0) * shadow[..., None]
    fill = (normals * (light * torch.tensor([-1.0, 1, 1], device=light.device))[:, None]).sum(-1)
    sky = head.openness * (0.65 + 0.35 * normals[..., 2])
    warmth = stack("warmth")[:, None] * torch.tensor([1.0, 0, -1], device=turned.device)
    total = (stack("key")[:, None, None] * key * (1 + warmth)[:, None]
             + (stack("ambient")[:, None] * sky)[..., None]
             + (stack("fill")[:, None] * fill.clamp(min=0) * head.openness)[..., None])
    half = F.normalize(light + torch.tensor([0.0, -1, 0], device=light.device), dim=-1)
    glint = (normals * half[:, None]).sum(-1).clamp(min=0) ** 22 * shadow * stack("key")[:, None]
    return torch.cat([total, glint[..., None]], -1)


def shade(head: Head, points, depth, lights: Tensor, atlases: Tensor, images: list[dict]
          ) -> tuple[Tensor, Tensor]:
    """Colour and cover of every pixel: (B, 3, H, W) linear, (B, 1, H, W) 0 or 1."""
    B, device = len(points), points.device
    seen = rasterise(points, depth, head.faces, HEIGHT, WIDTH)
    where, triangle, weights = at_pixels(points, head.faces, seen)
    image = where // (HEIGHT * WIDTH)
    texel = (head.texture[triangle] * weights[..., None]).sum(1)  # (P, 2)
    lit = corner_values(lights, head.faces, seen.shape, where, triangle)
    lit = (lit * weights[..., None]).sum(1)  # (P, 4)

    eye = head.eye[triangle].nonzero()[:, 0]
    gaze = torch.stack([im["gaze"] for im in images]).to(device) * 30  # texels
    light = torch.stack([im["light"] for im in images]).to(device)
    # The cornea mirrors the light: a small bright spot on the light's side of the iris.
    spot = torch.stack([32 + 9 * light[:, 0], EYE_PATCH[0] + 32 - 9 * light[:, 2]], -1)
    mirror = (texel[eye] - spot[image[eye]]).norm(dim=-1)
    texel[eye] -= gaze[image[eye]]

    grid = torch.zeros(B * HEIGHT * WIDTH, 2, device=device)
    size = torch.tensor([atlases.shape[3], atlases.shape[2]], device=device)
    grid[where] = (texel + 0.5) / size * 2 - 1
    surface = F.grid_sample(atlases, grid.reshape(B, HEIGHT, WIDTH, 2), align_corners=False)
    surface = surface.permute(0, 2, 3, 1).reshape(-1, 4)[where]  # (P, 4)
    colour = surface[:, :3] ** 2.2 * lit[:, :3] + 0.35 * surface[:, 3:] * lit[:, 3:]
    colour[eye] += 0.8 * torch.sigmoid((2.2 - mirror) / 0.5)[:, None]
    out = torch.zeros(B * HEIGHT * WIDTH, 3, device=device)
    out[where] = colour
    return (out.reshape(B, HEIGHT, WIDTH, 3).permute(0, 3, 1, 2).contiguous(),
            (seen >= 0)[:, None].float())


def backdrop(images: list[dict], rngs: list[torch.Generator], device) -> Tensor:
    """Behind the head: two muted colours, a soft pattern, shoulders; (B, 3, H, W) linear."""
    out = []
    x = torch.linspace(-1, 1, WIDTH)
    for image, rng in zip(images, rngs, strict=True):
        mix = noise(rng, 4, 4, (HEIGHT, WIDTH)) * 0.35 + noise(rng, 12, 12, (HEIGHT, WIDTH)) * 0.12
        mix = (mix + 0.5 + 0.3 * (image["backdrop"] - 0.5) * x).clamp(0, 1)
        colours = image["background"]
        colours = 0.18 * colours + 0.82 * colours.mean(1, keepdim=True)  # rooms are not saturated
        picture = colours[0][:, None, None] * mix + colours[1][:, None, None] * (1 - mix)
        cloth = 0.3 * image["cloth"] + 0.7 * image["cloth"].mean()
        edge = HEIGHT * (0.90 + 0.16 * x.abs() ** 1.5)
        below = torch.sigmoid((torch.arange(HEIGHT)[:, None] - edge) / 1.5)
        out.append(picture * (1 - below) + 0.7 * cloth[:, None, None] * below)
    return torch.stack(out).to(device) ** 2.2


def develop(colour: Tensor, cover: Tensor, images: list[dict], rngs) -> Tensor:
    """What the camera makes of light: exposure, blur, tone curve, noise; (B, 3, H, W) 0..255."""
    stack = lambda key: torch.tensor([image[key] for image in images],  # noqa: E731
                                     device=colour.device)[:, None, None, None]
    grey = torch.tensor([0.30, 0.59, 0.11], device=colour.device)[:, None, None]
    luminance = ((colour * grey).sum(1, keepdim=True) * cover).sum((1, 2, 3), keepdim=True)
    luminance = luminance / cover.sum((1, 2, 3), keepdim=True).clamp(min=1)
    # The camera exposes for the face, but not fully: dark skin stays darker than light skin.
    colour = colour * stack("exposure") * 0.22 / luminance.clamp(min=1e-3) ** 0.8 * 0.22**-0.2
    colour = _blur(colour, [image["blur"] * SCALE for image in images])
    colour = colour / (1 + 0.18 * colour)  # highlights roll off instead of clipping
    colour = colour.clamp(min=1e-5) ** (stack("gamma") / 2.2)
    colour = torch.where(stack("grey") > 0, (colour * grey).sum(1, keepdim=True), colour)
    grain = torch.stack([torch.randn(3, HEIGHT, WIDTH, generator=rng) for rng in rngs])
    grain = torch.where(stack("grey") > 0, grain.to(colour.device)[:, :1], grain.to(colour.device))
    return ((colour + stack("noise") * SCALE * grain) * 255).clamp(0, 255)


def _blur(images: Tensor, sigmas: list[float]) -> Tensor:
    """Gaussian blur, a width in pixels for each image."""
    radius = 7
    step = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    sigma = torch.tensor(sigmas, device=images.device, dtype=images.dtype)[:, None].clamp(min=0.1)
    kernel = torch.exp(-0.5 * (step / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)  # (3B, 15)
    B, C, H, W = images.shape
    flat = F.pad(images.reshape(1, B * C, H, W), (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=B * C)
    return F.conv2d(flat, kernel[:, None, :, None], groups=B * C).reshape(B, C, H, W)


def photograph(head: Head, shapes: Tensor, atlases: Tensor, images: list[dict],
               keys: list[tuple[int, ...]], crops: tuple[str, ...]) -> dict[str, Tensor]:
    """Pictures of heads, cut to crops: name -> (B, 3, S, S) uint8; "landmarks" (B, 5, 2) pixels."""
    rngs = [generator(*key, 3) for key in keys]
    points, depth, turned, marks = pose(head, shapes, images)
    lights = illuminate(head, turned, images)
    colour, cover = shade(head, points, depth, lights, atlases, images)
    behind = backdrop(images, rngs, colour.device)
    picture = develop(torch.where(cover > 0, colour, behind), cover, images, rngs)
    out = {name: align(picture, marks, name).round().clamp(0, 255).to(torch.uint8)
           for name in crops}
    return out | {"landmarks": marks}
