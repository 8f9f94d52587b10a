"""Where in a .rec each record begins: the .idx beside it, checked, or made anew by a scan."""

from array import array
from pathlib import Path

import numpy as np

from kdlab.cache import write_atomic
from kdlab.data.records import AGAIN, AHEAD, LEAST, REBUILT, Faults, Records
from kdlab.progress import progress

BLOCK = 1 << 12  # records between two words about how far it is; our choice


def index_of(path: Path, records: Records, faults: Faults) -> np.ndarray:
    """(M, 2) int64, sorted: key and byte of every record, from the text or, without it, a scan.

    Made by a scan it is written where the text was wanted, if that may be done and nothing is
    missing in it.
    """
    if path.exists():
        index = _ordered(_lines(path, faults), path, records, faults)
        _check_end(index, path, records, faults)
        return index
    index = _ordered(records.scan(faults), records.path, records, faults)
    if not faults.count:
        text = bytearray()
        for start in range(0, len(index), BLOCK):
            for key, at in index[start:start + BLOCK].tolist():
                text += b"%d\t%d\n" % (key, at)
        try:
            write_atomic(path, text)
        except OSError:
            pass  # a folder that is only read: the cache of the set keeps what was found
    return index


def _lines(path: Path, faults: Faults) -> np.ndarray:
    """(M, 2) int64, as the lines of the text say."""
    rows, number = array("q"), 0  # 16 bytes a record, no object
    with open(path, "rb") as file:
        blocks, parts = iter(lambda: file.readlines(AHEAD), []), path.stat().st_size // AHEAD
        for block in progress(blocks, f"{path}: parts of {AHEAD >> 20} MB", parts):
            for line in block:
                number += 1
                try:
                    key, at = map(int, line.split())
                    if (key | at) >> 63:  # below 0, or more than an int64
                        raise ValueError
                except ValueError:
                    faults.note(f"{path} line {number}: a line is a key and a byte, not "
                                f"{line[:40]!r}; {REBUILT}")
                else:
                    rows.extend((key, at))
    return np.frombuffer(rows, np.int64).reshape(-1, 2)


def _ordered(index: np.ndarray, path: Path, records: Records, faults: Faults) -> np.ndarray:
    """The rows in the order of their keys, without those that cannot be.   path: whence."""
    if (np.diff(index[:, 0]) <= 0).any():
        index = index[np.argsort(index[:, 0], kind="stable")]
    again = np.zeros(len(index), bool)
    again[1:] = np.diff(index[:, 0]) == 0
    again[:-1] |= again[1:]  # which of two is meant cannot be told: neither
    index = _without(index, again, path, "the key stands there more than once; find the .idx "
                     "that was packed with the .rec", faults)
    beyond = (index[:, 1] > records.size - LEAST) | (index[:, 1] % 4 != 0)
    index = _without(index, beyond, path, f"no place in {records.path} of {records.size} bytes, "
                     f"which is cut short or another index's; {AGAIN}", faults)
    by_byte = np.argsort(index[:, 1], kind="stable")
    near = np.zeros(len(index), bool)
    near[by_byte[1:]] = np.diff(index[by_byte, 1]) < LEAST
    index = _without(index, near, path, f"begins within another record; {REBUILT}", faults)
    if not len(index):
        raise ValueError(f"{path} names no record of {records.path}; {REBUILT}")
    return index


def _check_end(index: np.ndarray, path: Path, records: Records, faults: Faults) -> None:
    """A fault where records follow the last one the index knows."""
    key, at = index[index[:, 1].argmax()].tolist()
    try:
        end = records.head(at, key).end
    except ValueError:
        return  # said when it is read
    if end < records.size:
        faults.note(f"{path} knows nothing of bytes {end} to {records.size} of {records.path}, "
                    f"behind record {key}: it is older or another file's; {REBUILT}")


def _without(index: np.ndarray, wrong: np.ndarray, path: Path, what: str,
             faults: Faults) -> np.ndarray:
    """The rows that are not wrong; those that are make one fault, which names the first."""
    if not wrong.any():
        return index
    key, at = index[wrong.argmax()].tolist()
    count = int(wrong.sum())
    also = f" and {count - 1} more" if count > 1 else ""
    faults.note(f"{path} record {key} (byte {at}){also}: {what}", count)
    return index[~wrong]
