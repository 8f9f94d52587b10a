"""Which records of an MXNet face set are pictures, and whose: a table of key, byte and label.

insightface's form, as its packers write it and its loaders read it:

    record 0                    labels N + 1 and N + 1 + identities, no picture: the directory
    records 1 ... N             the pictures; identity: the label, of several the first
    records N + 1 ...           of each identity, in the order of the file: its first record and
                                the one after its last, as labels; no picture

Without a directory (a shuffled set) every record is a picture. Record 0 may lie anywhere in the
file, so all are found through the index.

Labels are those in the pictures' headers. With a directory only the first and the last picture of
each identity are looked at (171,000 of MS1MV2's 5.8 million); where those two differ, where the
directory does not fit, and without one, all are. What was found is kept in the cache folder.
"""

import json
import os
from pathlib import Path

import numpy as np

from kdlab.cache import cache_dir, digest, locked, write_atomic
from kdlab.data.record_index import BLOCK, index_of
from kdlab.data.records import AGAIN, AHEAD, REBUILT, Faults, Head, Records
from kdlab.progress import progress

FORMAT = 1
EXACT = 1 << 24  # from here on float32 no longer tells whole numbers apart



def label_of(head: Head, name: str) -> int:
    """The identity a picture's record states.   ValueError, by name, if it states none."""
    label = head.labels[0]
    if not head.picture:
        raise ValueError(f"{name} holds no picture; {AGAIN}")
    if label >= EXACT:
        raise ValueError(f"{name} has the label {label:.0f}; from 2^24 = {EXACT} on float32 runs "
                         "identities together: pack the set anew with labels counted from 0")
    if not label >= 0 or label % 1:
        raise ValueError(f"{name} has the label {label}, an identity is a whole number from 0; "
                         f"{AGAIN}")
    return int(label)


def stamp(path: Path) -> list[int]:
    """Length and time of a file, [] where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return []
    return [found.st_size, found.st_mtime_ns]


def pictures(rec: Path, on_bad: str) -> tuple[np.ndarray, Faults]:
    """(3, N) int64, memory-mapped: key, byte and label of every picture, in the order of the keys.

    Taken from the cache folder while .rec and .idx are the files they were (length and time), else
    made by one process while others wait. 24 bytes a picture: 140 MB for MS1MV2.
    """
    faults, idx = Faults(on_bad), rec.with_suffix(".idx")
    folder = cache_dir("recordio", digest([FORMAT, os.fsencode(rec.absolute()).hex(), on_bad]))
    table, about = folder / "pictures.npy", folder / "about.json"
    with locked(table):
        try:
            known = json.loads(about.read_text())
            if known["files"] == [stamp(rec), stamp(idx)]:
                return (np.load(table, mmap_mode="r", allow_pickle=False),
                        Faults(on_bad, known["count"], known["lines"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            pass  # nothing yet, or damaged: made anew
        before, records = stamp(rec), Records(rec)
        made = _labelled(records, index_of(idx, records, faults), idx, faults)
        about.unlink(missing_ok=True)  # so that it never speaks of another table
        np.save(folder / "new.npy", made)
        os.replace(folder / "new.npy", table)
        write_atomic(about, json.dumps({"files": [before, stamp(idx)], "count": faults.count,
                                        "lines": faults.lines}))
        return np.load(table, mmap_mode="r", allow_pickle=False), faults


def _labelled(records: Records, index: np.ndarray, idx: Path, faults: Faults) -> np.ndarray:
    """(3, N) int64 of an index (M, 2)."""
    directory, found, labels = _directory(records, index, faults), index, None
    if directory is not None:
        start, stop = np.searchsorted(index[:, 0], (1, directory))
        found = index[start:stop]
        missing = directory - 1 - len(found)
        if missing:
            place = found[:, 0] != np.arange(1, len(found) + 1)
            key = int(place.argmax() if place.any() else len(found)) + 1
            faults.note(f"{idx} has no line for {missing} of the pictures 1 to {directory - 1}, "
                        f"the first of them record {key}; {REBUILT}", missing)
        elif directory < EXACT:
            labels = _by_directory(records, found, index[stop:])
    if labels is None:
        labels = _by_headers(records, found, faults)
        found, labels = found[labels >= 0], labels[labels >= 0]
    if not len(found):
        raise ValueError(f"{records.path} holds no picture; copy the file again")
    table = np.empty((3, len(found)), np.int64)
    table[:2], table[2] = found.T, labels
    return table


def _directory(records: Records, index: np.ndarray, faults: Faults) -> int | None:
    """The key after the last picture, as record 0 states it; None without a directory."""
    key, at = index[0].tolist()
    if key != 0:
        return None
    try:
        head = records.head(at, key)
        if head.picture or len(head.labels) < 2:
            return None
        first, last = head.labels
        if not 1 < first <= last < 1 << 32 or first % 1 or last % 1:
            raise ValueError(f"{records.name(at, key)} should name the record after the last "
                             f"picture and the end, not {first:g} and {last:g}; {AGAIN}")
    except ValueError:
        if faults.on_bad == "raise":
            raise
        return None  # what is wrong with it is said with the pictures
    first = int(first)
    if first >= EXACT:  # written as float32 it was rounded: look where the pictures end
        slack = int(np.spacing(np.float32(first)))
        near = index[slice(*np.searchsorted(index[:, 0], (first - slack, first + slack + 1)))]
        return next((key for key, at in near.tolist() if not records.head(at, key).picture), first)
    return first


def _by_directory(records: Records, found: np.ndarray, ranges: np.ndarray) -> np.ndarray | None:
    """(N,) int64 from the records behind the pictures; None where those do not fit."""
    if not 0 < len(ranges) <= len(found):
        return None
    bounds, who = np.empty((len(ranges), 2)), np.empty((len(ranges), 2), np.int64)
    try:
        for k, (key, at) in enumerate(progress(ranges.tolist(), f"{records.path}: directory")):
            head = records.head(at, key)
            bounds[k] = head.labels if len(head.labels) == 2 else np.nan
        if (not np.isfinite(bounds).all() or (bounds % 1).any() or (np.diff(bounds) < 1).any()
                or (bounds[1:, 0] != bounds[:-1, 1]).any()
                or (bounds[0, 0], bounds[-1, 1]) != (1, len(found) + 1)):
            return None
        rows = bounds.astype(np.int64) - [1, 2]  # of the first and the last picture
        for k, pair in enumerate(progress(rows.tolist(), f"{records.path}: identities")):
            for side, (key, at) in enumerate(found[pair].tolist()):
                who[k, side] = label_of(records.head(at, key), records.name(at, key))
    except ValueError:
        return None
    return np.repeat(who[:, 0], np.diff(rows)[:, 0] + 1) if (who[:, 0] == who[:, 1]).all() else None


def _by_headers(records: Records, found: np.ndarray, faults: Faults) -> np.ndarray:
    """(N,) int64 from every picture's own header, -1 where it states none."""
    labels, ahead = np.full(len(found), -1, np.int64), Records(records.path, AHEAD)
    order = np.argsort(found[:, 1])
    for start in progress(range(0, len(order), BLOCK),
                          f"{records.path}: labels, blocks of {BLOCK} records"):
        part = order[start:start + BLOCK]
        for row, (key, at) in zip(part.tolist(), found[part].tolist(), strict=True):
            try:
                labels[row] = label_of(ahead.head(at, key), ahead.name(at, key))
            except ValueError as error:
                faults.note(error)
    return labels
