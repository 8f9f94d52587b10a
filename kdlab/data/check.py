"""What a set of faces holds, before anything is learnt from it: `kdlab data check PATH`.

One pass decodes every picture and keeps 46 bytes of it, 270 MB for 5.8 million; what is there
twice is then found by sorting (kdlab.data.duplicates), how the pictures are stored by asking the
dlib teacher about a few hundred (kdlab.data.probe). Everything in the report is counted or
measured; nothing is changed or removed.
"""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from kdlab.data.duplicates import (
    CHANGES,
    average,
    changes,
    copies,
    fingerprints,
    leaks,
    pixel_hash,
)
from kdlab.data.opening import Opened, opened_set, picture_of, row_name
from kdlab.data.reading import THREADS
from kdlab.data.records import LINES, Faults
from kdlab.progress import progress

SAMPLE = 300  # pictures the teacher is asked about: 2 s each hypothesis on one core; ours
COMMON = 512  # pictures whose average the fingerprints leave out; ours
_PART = 64  # pictures decoded at a time
SHOWN = 8  # people on the contact sheet, and pictures of each at most
ITEM = [("pixels", "<u8"), ("print", "u1", 36), ("read", "?"), ("grey", "?")]  # of a picture


def check(path, benchmark=None, *, teacher=True, sample: int = SAMPLE, embed: int = 0,
          seed: int = 0, workers: int | None = None) -> dict:
    """Look at all of a set; the report, of what JSON can hold: "set" and "benchmark" (counts,
    sizes, channels, faults), "copies", "leaks", "probe", "people", "sheet" (rows to be shown).

    path, benchmark: what `kdlab.data.opening.open_set` takes, or a set of faces. A picture that is
    in both leaks.
    teacher: ask the dlib teacher about `sample` pictures (channel order, alignment); or a Teacher
    to ask.   embed: look for one person under two identities among so many pictures, too (all
    pairs, by the teacher; 10 ms a picture).   workers: decoding threads.

    Ctrl-C ends the pass over the pictures: what was found until then is reported, with
    "finished": False. Raises what `open_set` raises.
    """
    start, report = time.monotonic(), {"finished": True}
    sets = [opened_set(one) for one in (path, benchmark) if one is not None]
    items, common = [], None
    for key, one in zip(("set", "benchmark"), sets, strict=False):
        if common is None:
            common = _common(one, seed)
        found, item, done = _scan(one, common, workers)
        report[key] = {"path": one.name, "kind": one.kind, **_people(one), **found}
        items.append(item)
        if not done:
            report["finished"] = False
            break
    names = [partial(row_name, one) for one in sets]
    report["copies"] = copies(items[0], sets[0].faces.labels, names[0])
    if len(items) == 2:
        report["leaks"] = leaks(items, names)
    report["sheet"] = _sheet(sets[0], items[0], seed)
    if teacher and report["finished"]:
        from kdlab.data.probe import look_alikes, probe  # here: the rest needs no network

        try:
            report["probe"] = probe(sets[0], items[0], teacher, sample, seed)
            if embed:
                report["people"] = look_alikes(sets, [item["read"] for item in items],
                                               report["probe"], teacher, embed, seed)
        except KeyboardInterrupt:
            report["finished"] = False
    report["seconds"] = round(time.monotonic() - start, 1)
    return report


def _common(one: Opened, seed: int) -> np.ndarray:
    """What the pictures of a set have in common, by a sample of it."""
    N, rows = len(one.faces), []
    for row in np.sort(np.random.default_rng(seed).permutation(N)[:COMMON]).tolist():
        try:
            rows.append(changes(picture_of(one, row)))
        except (ValueError, OSError):
            continue  # the pass names it
    return average(np.array(rows, np.float32).reshape(-1, CHANGES))


def _looked_at(one: Opened, row: int):
    """Hash, changes, size, sums and sums of squares by channel, grey or not; an error's words."""
    try:
        x = picture_of(one, row)
    except ValueError as error:
        return str(error)
    except OSError as error:  # a disk that fails, a file that went away
        return f"{row_name(one, row)}: {error.strerror or error}"
    flat = x.reshape(-1, 3)
    grey = bool((flat[:, 0] == flat[:, 1]).all() and (flat[:, 1] == flat[:, 2]).all())
    sums = np.einsum("nc->c", flat, dtype=np.float64)
    squares = np.einsum("nc,nc->c", flat, flat, dtype=np.float64)
    return pixel_hash(x), changes(x), x.shape[1::-1], sums, squares, grey


def _scan(one: Opened, common: np.ndarray, workers: int | None) -> tuple[dict, np.ndarray, bool]:
    """Every picture once: what the report says of them, what is kept of each, came it to an end?"""
    N, sizes, faults = len(one.faces), Counter(), Faults("skip", one.faults.count, one.faults.lines)
    item, sums, squares = np.zeros(N, ITEM), np.zeros(3), np.zeros(3)
    done, passed_over = 0, one.faults.count
    pool = ThreadPoolExecutor(workers or min(THREADS, os.cpu_count() or 1), "kdlab check")
    try:
        for start in progress(range(0, N, _PART), f"{one.name}: blocks of {_PART} pictures"):
            rows = range(start, min(start + _PART, N))
            found = list(pool.map(lambda row: _looked_at(one, row), rows))
            good = [k for k, what in enumerate(found) if not isinstance(what, str)]
            for what in found:
                if isinstance(what, str):
                    faults.note(what)
                    continue
                sizes[what[2]] += 1
                sums, squares = sums + what[3], squares + what[4]
            if good:
                at = start + np.array(good)
                item["pixels"][at] = [found[k][0] for k in good]
                item["print"][at] = fingerprints(np.stack([found[k][1] for k in good]), common)
                item["grey"][at] = [found[k][5] for k in good]
                item["read"][at] = True
            done = rows.stop
    except KeyboardInterrupt:
        pass
    finally:
        pool.shutdown(cancel_futures=True)
    area = sum(w * h * count for (w, h), count in sizes.items()) or 1
    mean = sums / area
    spread = np.sqrt(np.maximum(squares / area - mean**2, 0))
    about = {
        "looked_at": done, "read": int(item["read"].sum()),
        "unreadable": faults.count - passed_over, "passed_over": passed_over,
        "faults": [*map(str, faults.lines[:LINES])],
        "sizes": [[w, h, count] for (w, h), count in sizes.most_common(20)],
        "kinds_of_size": len(sizes), "grey": int(item["grey"].sum()),
        "mean": mean.round(3).tolist() if sizes else None,
        "std": spread.round(3).tolist() if sizes else None,
    }
    return about, item, done == N


def _people(one: Opened) -> dict:
    """Images, identities and how many images each has; pairs for a .bin."""
    about = {"images": len(one.faces)}
    if one.is_same is not None:
        return about | {"pairs": len(one.is_same), "genuine": int(one.is_same.sum())}
    if one.faces.labels is None:
        return about
    counts = np.unique(one.faces.labels, return_counts=True)[1]
    return about | {
        "identities": len(counts), "singletons": int((counts == 1).sum()),
        "images_per_identity": [int(counts.min()), float(np.median(counts)), int(counts.max())]}


def _sheet(one: Opened, item: np.ndarray, seed: int) -> list[list[int]]:
    """Rows of the set for a contact sheet: some people, some pictures of each."""
    rows = np.flatnonzero(item["read"])
    rng = np.random.default_rng(seed)
    if one.is_same is not None or one.faces.labels is None:
        some = np.sort(rng.permutation(rows)[:SHOWN * SHOWN])
        return [part.tolist() for part in np.split(some, range(SHOWN, len(some), SHOWN))
                if len(part)]
    labels = one.faces.labels
    people = rng.permutation(np.unique(labels[rows]))[:SHOWN]
    return [rows[labels[rows] == person][:SHOWN].tolist() for person in np.sort(people)]
