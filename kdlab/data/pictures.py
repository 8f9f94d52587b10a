"""A picture file as pixels: headers judged before anything is decoded, then upright RGB."""

import io
import math
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from kdlab.align import SIZES, TEMPLATES, similarity, warp
from kdlab.data.shown import shown

MOST = 64_000_000  # pixels of a file: our choice, below Pillow's own guard of 89 million
# Above that one Pillow warns before `opened` refuses in words; from twice as many on it raises.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Record(io.BytesIO):
    """A picture's file that lies in memory; errors call it by its name."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self._name = name

    def __str__(self) -> str:
        return self._name

    __repr__ = __str__  # Pillow's errors use this one


@cache
def formats() -> list[str]:
    """The kinds of file that are read, usual ones first, for Pillow tries them in order: all that
    it knows but EPS, which it hands to another program."""
    Image.init()
    usual = [kind for kind in ("JPEG", "PNG", "WEBP", "BMP") if kind in Image.OPEN]
    return usual + [kind for kind in Image.OPEN if kind not in ("EPS", *usual)]


@cache
def suffixes() -> tuple[str, ...]:
    """How the names of such files end, in small letters."""
    return tuple(suffix for suffix, kind in Image.registered_extensions().items()
                 if kind in formats())


def opened(path: Path | Record, size: int, square: bool = True) -> Image.Image:
    """The file, its header read and judged, not yet decoded; ValueError that names it."""
    try:
        image = Image.open(path, formats=formats())
    except Image.DecompressionBombError as error:
        raise ValueError(f"{_name(path)} has over {MOST:,} pixels, more than any aligned face; "
                         "remove it") from error
    except Exception as error:  # Pillow's readers raise whatever their parsing meets
        raise unreadable(path, error) from error
    width, height = image.size
    if width * height > MOST:
        wrong = f"has {width} x {height} pixels, more than any aligned face; remove it"
    elif not width * height:
        wrong = f"has {width} x {height} pixels, no picture at all; remove it"
    elif square and width != height:
        wrong = f"is {width} x {height} pixels; aligned pictures are square, align it first"
    elif min(width, height) < size:
        wrong = (f"is {min(width, height)} pixels a side, the set asks for {size}; set size: "
                 f"{min(width, height)} or less")
    else:
        return image
    image.close()
    raise ValueError(f"{_name(path)} {wrong}")


def decode(path: Path | Record, size: int, square: bool = True) -> np.ndarray:
    """A picture of `size` pixels a side or more as (H, W, 3) uint8 RGB, upright.

    square: refuse others.   Grey becomes RGB, 16 bits become 8, what is transparent becomes black,
    of several frames the first is taken.   ValueError that names the file.
    """
    with opened(path, size, square) as image:
        try:
            image = ImageOps.exif_transpose(image)
            if image.mode[0] in "IF":  # Pillow clips these where it should scale
                image = Image.fromarray(eight_bits(np.asarray(image)))
            elif image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
        except Exception as error:  # as above
            raise unreadable(path, error) from error


def eight_bits(grey: np.ndarray) -> np.ndarray:
    """16-bit grey values as uint8, rounded.   ValueError for other numbers."""
    if grey.dtype.kind not in "iu" or grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its values are not those of 8 or 16 bits")
    return ((grey.astype(np.int64) + 128) // 257).astype(np.uint8)  # 65535 becomes 255


def unreadable(path: Path | Record, error: Exception) -> ValueError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"{_name(path)} cannot be read as a picture ({said[:200]}); restore or "
                      "remove it")


def _name(path: object) -> str:
    """A path as it can be printed; a file in memory has a name of its own."""
    return shown(path) if isinstance(path, str | Path) else str(path)


def aligned(picture: np.ndarray, points: np.ndarray, crop: str, name: str) -> np.ndarray:
    """(H, W, 3) uint8 and five landmarks (5, 2) in its pixels -> the crop, (S, S, 3) uint8.

    As `kdlab.align.align`, but only the part of the picture that the crop shows is looked at, and
    that is first shrunk by whole steps where the face is large: a photograph of 50 million pixels
    need not become floats.   ValueError, by `name`, for landmarks outside the picture.
    """
    S, (H, W) = SIZES[crop], picture.shape[:2]
    matrix = similarity(torch.from_numpy(points)[None], TEMPLATES[crop])  # picture -> crop
    A, b = matrix[0, :, :2], matrix[0, :, 2]
    corners = torch.tensor([[-1, -1], [S, -1], [-1, S], [S, S]], dtype=torch.float64)
    corners = (corners - b) @ torch.linalg.inv(A).T  # in the picture, a pixel of the crop around it
    left, top = (max(0, math.floor(low) - 1) for low in corners.amin(0).tolist())
    right, below = (min(most, math.ceil(high) + 2) for most, high in
                    zip((W, H), corners.amax(0).tolist(), strict=True))
    if left >= right or top >= below:
        raise ValueError(f"{name} has {W} x {H} pixels, its landmarks lie outside; they are "
                         "counted in pixels of the upright picture")
    shrink = 1 / math.sqrt(abs(float(torch.linalg.det(A))))
    step = max(1, int(shrink / 2))  # the rest is left to `warp`, which averages
    part = Image.fromarray(picture[top:below, left:right]).reduce(step)
    x = torch.from_numpy(np.array(part)).permute(2, 0, 1)[None].float()
    first = torch.tensor([left, top], dtype=torch.float64) + (step - 1) / 2
    matrix = torch.cat([A * step, (A @ first + b)[:, None]], 1)
    return warp(x, matrix[None], S)[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
