"""From factors to pictures: pose, light, z-buffer, texture, layers, crop. Batched.

A picture is taken once, somewhat larger than its crops, in a frame wide enough for each; the crops
are then cut from it by the same five-point alignment that real photographs go through, with
landmarks that are known exactly. Four layers, head, hair, mask and glasses, have each a z-buffer of
their own, because hair and lenses let light through.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.align import TEMPLATES, align, similarity
from kdlab.world.ageing import grey_hair, ramp, skin_at_age
from kdlab.world.backdrop import backdrop
from kdlab.world.camera import LUMINANCE, develop
from kdlab.world.dress import Person, Wardrobe, tints, wardrobe, wear
from kdlab.world.head import EYE_PATCH, Head, light_basis
from kdlab.world.identity import age_weights, generator
from kdlab.world.nuisance import rotation
from kdlab.world.raster import at_pixels, blend, blend_corners, normals, rasterise, sample
from kdlab.world.skin import GAMMA

SCALE = 1.5  # picture pixels per pixel of the ArcFace crop: the scale of dlib's crop
MARGIN = (10, 6)  # ArcFace pixels left/right and above/below that the other crops may need
WIDTH, HEIGHT = round((112 + 2 * MARGIN[0]) * SCALE), round((124 + 2 * MARGIN[1]) * SCALE)
# Light that enters skin leaves it further on, red furthest: the shadow's edge is soft and warm.
_WRAP = (0.28, 0.14, 0.10)
_CELL = 4  # pixels: the grain of the soft shadows of what is worn
_SKIN = 0.36  # linear luminance of skin before which a backdrop is as bright as it was drawn
_TOUCH = 0.002  # metres: what is worn this far under the skin still shows, for it lies on it


def _stack(images: list[dict], name: str, device) -> Tensor:
    return torch.tensor([image[name] for image in images], device=device)


def pose(head: Head, people: list[Person], images: list[dict]
         ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heads and what they wear as the camera sees them; V head vertices, then W worn points.

    Returns points (B, V + W, 2) in picture pixels, depth (B, V + W) metres, vertices (B, V + W, 3)
    turned to the camera, landmarks (B, 5, 2) pixels.
    """
    device = head.mean.device
    vertices = []
    for person, image in zip(people, images, strict=True):
        child, old = age_weights(image["age"])
        shape = person.shape + child * head.directions["age_child"] \
            + old * head.directions["age_old"]
        for action, strength in image["expression"].items():
            shape = shape + strength * head.expressions[action]
        vertices.append(torch.cat([shape, wear(head, person, image, shape)]))
    vertices = torch.stack(vertices)
    turn = rotation(*(_stack(images, name, device) for name in ("yaw", "pitch", "roll")))
    # Sums written out: a matrix product may round differently for another batch size.
    x, y, z = (vertices[..., None, :] * turn[:, None]).sum(-1).unbind(-1)
    depth = y + _stack(images, "distance", device)[:, None]
    flat = torch.stack([x, -z], -1) / depth[..., None]
    spots = torch.stack([flat[:, index].mean(1) for index in head.landmarks], 1)
    frame = (TEMPLATES["arcface"] + torch.tensor(MARGIN)) * SCALE
    matrix = similarity(spots, frame.to(device)).to(flat.dtype)
    points = (flat[:, :, None] * matrix[:, None, :, :2]).sum(-1) + matrix[:, None, :, 2]
    marks = (spots[:, :, None] * matrix[:, None, :, :2]).sum(-1) + matrix[:, None, :, 2]
    return points, depth, torch.stack([x, y, z], -1), marks


def illuminate(head: Head, things: Wardrobe, turned: Tensor, people: list[Person],
               images: list[dict]) -> Tensor:
    """Light on every vertex: (B, V + W, 4), three colours and the highlight, linear.

    A key light that casts shadows, a weak fill from the other side, the sky (the less of it the
    deeper a vertex lies), and in some pictures a light from behind. Worn points take shadow and sky
    of the head vertex next to them.
    """
    device = turned.device
    normal = normals(turned, things.once)
    light = torch.stack([image["light"] for image in images]).to(device)
    turn = rotation(*(_stack(images, name, device) for name in ("yaw", "pitch", "roll")))
    in_head = (turn.transpose(1, 2) * light[:, None]).sum(-1)  # the light as the head sees it
    shadow = (head.shadow * light_basis(in_head)[:, None]).sum(-1).clamp(0, 1)  # (B, V)
    near = torch.stack([person.near for person in people])
    shadow = torch.cat([shadow, shadow.gather(1, near)], 1)
    openness = torch.cat([head.openness.expand(len(images), -1), head.openness[near]], 1)
    key, ambient, fill, rim, warmth = (_stack(images, name, device)[:, None] for name in
                                       ("key", "ambient", "fill", "rim", "warmth"))
    facing = (normal * light[:, None]).sum(-1)
    other = (normal * (light * light.new_tensor([-1, 1, 1]))[:, None]).sum(-1).clamp(min=0)
    behind = F.normalize(light * light.new_tensor([-1, 0, 0]) + light.new_tensor([0, 0.7, 0.4]),
                         dim=-1)
    edge = (normal * behind[:, None]).sum(-1).clamp(min=0)
    even = (ambient * (0.65 + 0.35 * normal[..., 2]) + fill * other + rim * edge) * openness
    lit = []
    for wrap, warm in zip(_WRAP, (1, 0, -1), strict=True):
        lit.append(key * (1 + warm * warmth) * shadow
                   * ((facing + wrap) / (1 + wrap)).clamp(min=0) + even)
    half = F.normalize(light + light.new_tensor([0, -1, 0]), dim=-1)
    # Its 22nd power, written out: torch rounds powers and sigmoids by their place in a vector.
    shine = (normal * half[:, None]).sum(-1).clamp(min=0)
    shine = (shine.square().square() * shine).square() * shine
    glint = shine.square() * shadow * key
    return torch.stack([*lit, glint], -1)


def aged(person: Person, age: float) -> Tensor:
    """The person's skin at an age: (5, rows, columns) linear colour, gloss, cover of hair."""
    flat = person.atlas.flatten(1)  # (7, texels)
    tint = grey_hair(person.who["hair"], age, person.who).to(flat.device) ** GAMMA
    skin = skin_at_age(flat.T, flat.new_full((1,), age), tint[None])
    return torch.cat([skin.T, flat[4:5]]).reshape(5, *person.atlas.shape[1:])


def shade(head: Head, points: Tensor, lights: Tensor, which: Tensor, skins: Tensor,
          images: list[dict], canvas: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the bare heads on the canvas (B * H * W, 3), linear light.

    lights: (B, V, 5), the last being depth.   which: (B,) row of skins (N, 5, ...), see `aged`.
    Returns depth (B * H * W), infinite behind the head, and how much of a pixel is bare skin.
    """
    B, device = len(points), points.device
    seen = rasterise(points, lights[..., 4].contiguous(), head.faces, HEIGHT, WIDTH)
    where, triangle, weights = at_pixels(points, head.faces, seen)
    picture = where // (HEIGHT * WIDTH)
    lit = blend(lights, head.faces, seen.shape, where, triangle, weights)  # (P, 5)
    texel = blend_corners(head.texture, triangle, weights)  # (P, 2)

    eye = head.eye[triangle].nonzero()[:, 0]
    gaze = torch.stack([image["gaze"] for image in images]).to(device) * 30  # texels
    light = torch.stack([image["light"] for image in images]).to(device)
    # The cornea mirrors the light: a small bright spot on the light's side of the iris.
    spot = torch.stack([32 + 9 * light[:, 0], EYE_PATCH[0] + 32 - 9 * light[:, 2]], -1)
    mirror = (texel[eye] - spot[picture[eye]]).norm(dim=-1)
    texel[eye] -= gaze[picture[eye]]

    skin = sample(skins, which[picture], texel)  # (P, 5)
    colour = skin[:, :3] * lit[:, :3] + 0.35 * skin[:, 3:4] * lit[:, 3:4]
    colour[eye] += 0.8 * ramp(2.2 - mirror, 0.5)[:, None]
    canvas[where] = colour
    depth = torch.full((B * HEIGHT * WIDTH,), torch.inf, device=device)
    depth[where] = lit[:, 4]
    bare = torch.zeros_like(depth)
    bare[where] = 1 - skin[:, 4]
    return depth, bare


def overlay(canvas: Tensor, depth: Tensor, bare: Tensor, points: Tensor, lights: Tensor,
            faces: Tensor, texture: Tensor, patches: Tensor, which: Tensor, gloss: float,
            inside: int) -> None:
    """Draw a layer that lets light through over what is there, where it is nearer; in place.

    lights: (B, V + W, 5), colours already tinted.   patches: (N, 2, ...) brightness and opacity.
    inside: number of the first triangle that shows a thing from within.
    """
    B = len(points)
    seen = rasterise(points, lights[..., 4].contiguous(), faces, HEIGHT, WIDTH)
    where, triangle, weights = at_pixels(points, faces, seen)
    lit = blend(lights, faces, seen.shape, where, triangle, weights)
    picture = where // (HEIGHT * WIDTH)
    look = sample(patches, which[picture], blend_corners(texture, triangle, weights))  # (P, 2)
    cover = (look[:, 1] * (lit[:, 4] < depth[where] + _TOUCH))[:, None]
    # What is worn keeps some light from what lies under and beside it.
    rows, columns = -(-HEIGHT // _CELL), -(-WIDTH // _CELL)
    cell = (where // WIDTH % HEIGHT // _CELL * columns + where % WIDTH // _CELL
            + picture * (rows * columns))
    shadow = torch.zeros(B * rows * columns, device=canvas.device)
    shadow = shadow.index_add_(0, cell, cover[:, 0] / _CELL**2).reshape(B, 1, rows, columns)
    shadow = F.interpolate(F.avg_pool2d(shadow, 3, 1, 1), (HEIGHT, WIDTH), mode="bilinear")
    canvas *= 1 - 0.45 * (shadow.reshape(-1) * (depth < torch.inf))[:, None]
    dim = torch.where(triangle < inside, 1.0, 0.3)[:, None]  # little light gets in
    colour = dim * look[:, :1] * (lit[:, :3] + gloss * lit[:, 3:4])
    canvas[where] = canvas[where] * (1 - cover) + colour * cover
    bare[where] *= 1 - cover[:, 0]
    depth[where] = torch.where(cover[:, 0] > 0.5, lit[:, 4], depth[where])


def photograph(head: Head, people: list[Person], images: list[dict],
               keys: list[tuple[int, ...]], crops: tuple[str, ...]) -> dict[str, Tensor]:
    """Pictures of people, cut to crops: name -> (B, 3, S, S) uint8; "landmarks" (B, 5, 2) pixels.

    people, images, keys (what the picture's random stream starts from): one for each picture.
    """
    B, V, device = len(images), len(head.mean), head.mean.device
    things = wardrobe(V, head.faces)
    rngs = [generator(*key, 3) for key in keys]
    points, depth, turned, marks = pose(head, people, images)
    lights = illuminate(head, things, turned, people, images)
    colours = torch.stack([tints(*pair) for pair in zip(people, images, strict=True)]).to(device)
    lights[:, V:, :3] *= colours
    lights = torch.cat([lights, depth[..., None]], -1)

    # Pictures of one person at one age share a skin.
    looks = {(id(person), image["age"]): (person, image["age"])
             for person, image in zip(people, images, strict=True)}
    rows = {name: row for row, name in enumerate(looks)}
    which = torch.tensor([rows[id(person), image["age"]]
                          for person, image in zip(people, images, strict=True)], device=device)
    skins = torch.stack([aged(*look) for look in looks.values()])
    patches = torch.stack([person.patch for person, _ in looks.values()])
    # The camera exposes for the skin; without this, dark skin would stand before a glaring scene.
    tone = torch.stack([person.who["skin"].clamp(0.08, 0.95) ** GAMMA for person in people])
    tone = (tone * torch.tensor(LUMINANCE)).sum(1).to(device)[:, None, None, None]
    behind = backdrop(images, rngs, (HEIGHT, WIDTH), device) * (tone / _SKIN)
    canvas = behind.permute(0, 2, 3, 1).reshape(-1, 3)
    nearest, bare = shade(head, points[:, :V].contiguous(), lights[:, :V].contiguous(), which,
                          skins, images, canvas)
    overlay(canvas, nearest, bare, points, lights, things.hair, things.hair_texture, patches,
            which, 0.12, len(things.hair) // 2)
    for name, gloss in (("mask", 0.03), ("glasses", 0.2)):
        some = [k for k, image in enumerate(images) if image[name]]
        if not some:
            continue
        faces, texture = getattr(things, name), getattr(things, f"{name}_texture")
        parts = [x.reshape(B, HEIGHT * WIDTH, -1)[some].reshape(-1, *x.shape[1:])
                 for x in (canvas, nearest, bare)]
        overlay(*parts, points[some], lights[some], faces, texture, things.patch[None],
                torch.zeros_like(which[some]), gloss, len(faces))
        for whole, part in zip((canvas, nearest, bare), parts, strict=True):
            whole.reshape(B, HEIGHT * WIDTH, -1)[some] = part.reshape(len(some), HEIGHT * WIDTH, -1)
    colour = canvas.reshape(B, HEIGHT, WIDTH, 3).permute(0, 3, 1, 2)
    picture = develop(colour, bare.reshape(B, 1, HEIGHT, WIDTH), images, rngs, SCALE)
    out = {name: align(picture, marks, name).round().clamp(0, 255).to(torch.uint8)
           for name in crops}
    return out | {"landmarks": marks}
