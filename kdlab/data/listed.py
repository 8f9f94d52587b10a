"""Pictures that a list describes: UTKFace's file names, CelebA's attribute files.

UTKFace (Zhang, Song and Qi, CVPR 2017): age, gender, race and date stand in the name of a picture.
CelebA (Liu et al., ICCV 2015): 40 attributes of 202,599 pictures in a text file. What is made of
them is the choice of MFD (Jung et al., "Fair feature distillation for visual recognition", CVPR
2021): a class to be learnt, and a group that must not matter for it.
"""

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdlab.data.listed_faces import SIZE, ListedFaces
from kdlab.data.lists import check_sides, five_points, lines
from kdlab.data.pictures import suffixes
from kdlab.data.shown import shown

AGES = 20, 40  # years at which MFD's second and third class of UTKFace begin
RACES = ("white", "black", "asian", "indian")  # UTKFace's codes 0 to 3; 4, others, is left out
HELD_OUT = 100  # test pictures of each age and race: MFD's
PARTS = "train", "valid", "test"  # CelebA's codes 0, 1, 2
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
LANDMARKS = "list_landmarks_align_celeba.txt"
POINTS = "lefteye", "righteye", "nose", "leftmouth", "rightmouth"  # as that list calls them


def utkface(path: str | Path, part: str | None = "train", size: int = SIZE, *,
            held_out: int = HELD_OUT) -> ListedFaces:
    """UTKFace's aligned pictures as MFD splits them: class from age, group from race.

    path: a folder of AGE_GENDER_RACE_DATE.jpg (or .jpg.chip.jpg).   labels: 0 below 20 years, 1
    below 40, 2 from 40 on.   groups: race 0 to 3; the pictures of race 4 ("others") and names of
    other than four fields, three of which the published set has, are `left_out`.
    part: "train", "test" or None for both. The names, in natural order, are shuffled by seed 1;
    the last `held_out` of each class and group are the test pictures (MFD: 100).
    Written from a description of MFD's code: that the split is the same, picture by picture, was
    not compared.   ValueError, by name, for fields that are no such numbers.
    """
    if part not in ("train", "test", None):
        raise ValueError(f"part must be 'train', 'test' or None, not {part!r}")
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{shown(folder)}: no such folder; put UTKFace's aligned pictures "
                                "there, AGE_GENDER_RACE_DATE.jpg")
    with os.scandir(folder) as entries:
        found = sorted((e.name for e in entries if e.name[0] != "."
                        and e.name.lower().endswith(suffixes()) and e.is_file()), key=_natural)
    cells, left_out = {}, []
    for name in found:
        fields = name.split(".")[0].split("_")
        if len(fields) != 4:
            left_out.append(name)
            continue
        if not all(field.isdecimal() and len(field) < 4 for field in fields[:3]) or (
                int(fields[1]) > 1 or int(fields[2]) > len(RACES)):
            raise ValueError(f"{shown(folder / name)}: age, gender (0, 1) and race (0 to 4) do not "
                             "begin the name; rename or remove it")
        if int(fields[2]) == len(RACES):
            left_out.append(name)
        else:
            cells[name] = sum(int(fields[0]) >= age for age in AGES), int(fields[2])
    names = list(cells)
    random.Random(1).shuffle(names)
    test, counts = set(), {}
    for name in reversed(names):
        cell = cells[name]
        counts[cell] = counts.get(cell, 0) + 1
        if counts[cell] <= held_out:
            test.add(name)
    if part is not None:
        few = [(*cell, counts.get(cell, 0)) for cell in np.ndindex(3, len(RACES))
               if counts.get(cell, 0) <= held_out]
        if few:
            raise ValueError(f"{shown(folder)} holds {few[0][2]} pictures of class {few[0][0]}, "
                             f"race {few[0][1]}; a split with {held_out} test pictures of each "
                             "needs more: lower held_out or pass part=None")
        names = [name for name in names if (name in test) == (part == "test")]
    labels, groups = zip(*(cells[name] for name in names), strict=True) if names else ((), ())
    return ListedFaces(folder, names, labels, groups, size, left_out=left_out,
                       classes=("below 20", "20 to 39", "40 and more"), group_names=RACES)


def _natural(name: str) -> list:
    """2_ before 10_: numbers in a name count as such."""
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in re.split(r"([0-9]+)", name) if x]


def celeba(path: str | Path, part: str = "train", size: int = SIZE, *, target: str = "Attractive",
           group: str = "Male", landmarks: bool = False, equal_cells: bool = False) -> ListedFaces:
    """CelebA's aligned pictures with one of its attributes as class, another as group.

    path: a folder with img_align_celeba/, list_attr_celeba.txt, list_eval_partition.txt and, with
    landmarks, list_landmarks_align_celeba.txt, as published.   part: "train", "valid" or "test".
    target, group: names of attributes; labels and groups are 1 where the list says 1, 0 where it
    says -1.   size: of the central square (the pictures have 178 x 218 pixels); with landmarks the
    crops are "arcface" and "dlib" instead.   equal_cells: of each class and group only as many, in
    the order of the list, as the smallest has; MFD's test pictures.
    FileNotFoundError that says what to put where, ValueError with file and line.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, not {part!r}")
    path, folder = Path(path), Path(path) / "img_align_celeba"
    for needed in ("img_align_celeba", ATTRIBUTES, PARTITION, *[LANDMARKS] * landmarks):
        if not (path / needed).exists():
            raise FileNotFoundError(f"{shown(path / needed)}: not there; download CelebA's aligned "
                                    "pictures and lists from its authors and put them there")
    parts = {name: values[0] for name, _, values in _table(path / PARTITION, 1, "012")}
    columns, cells, left_out = (target, group), {}, []
    for name, where, values in _table(path / ATTRIBUTES, 40, ("-1", "1"), columns):
        if name not in parts:
            raise ValueError(f"{where}: {PARTITION} gives {name!r} no part")
        if parts[name] == str(PARTS.index(part)):
            cells[name] = tuple(int(value == "1") for value in values)
    if equal_cells:
        counts = {cell: list(cells.values()).count(cell) for cell in np.ndindex(2, 2)}
        left, kept = dict.fromkeys(counts, min(counts.values())), {}
        for name, cell in cells.items():
            left[cell] -= 1
            if left[cell] >= 0:
                kept[name] = cell
            else:
                left_out.append(name)
        cells = kept
    points = _celeba_points(path / LANDMARKS, list(cells)) if landmarks else None
    labels, groups = zip(*cells.values(), strict=True) if cells else ((), ())
    return ListedFaces(folder, list(cells), labels, groups, size, cut=True, landmarks=points,
                       left_out=left_out, classes=(f"not {target}", target),
                       group_names=(f"not {group}", group))


def _table(path: Path, count: int, allowed, columns: tuple[str, ...] | None = None
           ) -> Iterator[tuple[str, str, list[str]]]:
    """Name, "FILE line N" and values of each line of a list of CelebA's.

    columns: only these, of those that line 2 names below the number of lines; None: all, and the
    first line is a picture's already.
    """
    places, announced, seen = list(range(count)), None, set()
    for number, where, line in lines(path):
        fields = line.split()
        if columns is not None and number == 1:
            if len(fields) != 1 or not fields[0].isdecimal():
                raise ValueError(f"{where} must be the number of pictures, not "
                                 f"{line.strip()[:40]!r}")
            announced = int(fields[0])
        elif columns is not None and number == 2:
            unknown = [name for name in columns if name not in fields]
            if len(fields) != count or unknown:
                raise ValueError(f"{where} must name {count} columns, "
                                 f"{', '.join(unknown) or 'all of them'} among these; it names "
                                 f"{len(fields)}")
            places = [fields.index(name) for name in columns]
        else:
            values = [fields[1 + k] for k in places] if len(fields) == count + 1 else []
            if not values or (allowed is not None and not set(fields[1:]) <= set(allowed)):
                raise ValueError(f"{where} must be a picture and {count} values"
                                 + (f" of {', '.join(allowed)}" if allowed else ""))
            if fields[0] in seen or "/" in fields[0] or fields[0][0] == ".":
                raise ValueError(f"{where}: {fields[0]!r} had a line before, or is no plain name")
            seen.add(fields[0])
            yield fields[0], where, values
    if announced not in (None, len(seen)):
        raise ValueError(f"{shown(path)} announces {announced} pictures and lists {len(seen)}; "
                         "copy it again")


def _celeba_points(path: Path, names: list[str]) -> np.ndarray:
    """(N, 5, 2) float32 of CelebA's list; left is there as in the picture, too."""
    rows = {name: row for row, name in enumerate(names)}
    points = np.full((len(names), 10), np.nan, np.float32)
    columns = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")
    for name, where, values in _table(path, 10, None, columns):
        if name in rows:
            points[rows[name]] = five_points(values, where)
    missing = np.flatnonzero(np.isnan(points[:, 0]))
    if len(missing):
        raise ValueError(f"{shown(path)} gives {names[missing[0]]!r} no landmarks")
    check_sides(points, path)
    return points.reshape(-1, 5, 2)
