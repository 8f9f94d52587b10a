"""Text files that say something of pictures: a line each, faults named by file and line."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kdlab.data.shown import shown
from kdlab.progress import progress

LINE = 1 << 16  # characters of a line at most; our choice, CelebA's have 130
FARTHEST = 1e6  # pixels from the corner of a picture to a landmark, at most; our choice


def lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number from 1, "FILE line N", and text of every line that is not empty."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 0
        while line := file.readline(LINE):
            number += 1
            where = f"{shown(path)} line {number}"
            if len(line) == LINE:
                raise ValueError(f"{where} is longer than {LINE} characters; is this the list?")
            if line.strip():
                yield number, where, line


def csv_lines(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """As `lines`, cut into fields; ValueError where quotation marks do not close in a line."""
    for number, where, line in lines(path):
        try:
            yield number, where, next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise ValueError(f"{where}: {error}; a line is fields with commas between") from None


def five_points(fields: list[str], where: str) -> list[float]:
    """Ten numbers of a list; ValueError that says which field is none."""
    if len(fields) != 10:
        raise ValueError(f"{where}: a line is a picture and ten numbers (x and y of left eye, "
                         "right eye, nose, left and right mouth corner), not "
                         f"{len(fields)} numbers")
    values = []
    for k, field in enumerate(fields, 1):
        try:
            values.append(float(field))
        except ValueError:
            raise ValueError(f"{where}: {field[:40].strip()!r} (number {k}) is no number") from None
        if not abs(values[-1]) <= FARTHEST:  # NaN is not either
            raise ValueError(f"{where}: number {k} is {values[-1]:g}, no place in a picture")
    if math.hypot(max(values[::2]) - min(values[::2]), max(values[1::2]) - min(values[1::2])) < 1:
        raise ValueError(f"{where}: the five landmarks coincide")
    return values


def read_landmarks(path: str | Path, count: int, row_of: Callable[[str], int | None],
                   name_of: Callable[[int], str], folder: str) -> np.ndarray:
    """(count, 5, 2) float32: x, y of five landmarks a picture, of a CSV with a line for each.

    A line: the picture as `row_of` knows it, then x and y of the left eye, the right eye, the tip
    of the nose, the left and the right corner of the mouth, left as seen in the picture, in pixels
    of the upright picture (EXIF orientation applied), the centre of the first at 0, 0. A heading
    line may stand above.   ValueError with file and line for what does not fit, and where in most
    lines the left eye lies right of the right one.
    """
    points = np.full((count, 10), np.nan, np.float32)
    for number, where, line in progress(csv_lines(Path(path)), f"{path}: lines", count):
        name, values = line[0].strip(), line[1:]
        row = row_of(name)
        if number == 1 and row is None and not _number(line[-1]):
            continue  # a heading
        if row is None:
            raise ValueError(f"{where}: {folder} has no picture {name!r}; names are as in the "
                             "folder")
        if not np.isnan(points[row, 0]):
            raise ValueError(f"{where}: {name!r} had a line before")
        points[row] = five_points(values, where)
    missing = np.flatnonzero(np.isnan(points[:, 0]))
    if len(missing):
        raise ValueError(f"{shown(path)} gives {shown(name_of(int(missing[0])))} no landmarks "
                         f"({len(missing)} pictures have none); add a line for each")
    check_sides(points, path)
    return points.reshape(-1, 5, 2)


def _number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def check_sides(points: np.ndarray, path: str | Path) -> None:
    """ValueError where most left eyes of (N, 10) landmarks lie right of the right ones."""
    swapped = (points[:, 0] > points[:, 2]).sum() / max(len(points), 1)
    if swapped > 0.5:
        raise ValueError(f"{shown(path)}: in {swapped:.0%} of the lines the left eye lies right of "
                         "the right eye; left is as seen in the picture, exchange eyes and mouth "
                         "corners")
