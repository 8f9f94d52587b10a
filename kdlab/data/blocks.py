"""An array on disk that several processes fill together, block of rows by block of rows.

In its folder lie

    NAME.npy     the array, an ordinary .npy of little-endian floats; holes where nothing is yet
    state.json   what it is: any JSON, with shape, dtype and block (rows of a block) among it
    blocks.txt   a line for every finished block: its number, the SHA-256 of its bytes
    claims/      a lock file for each block that is being computed now

Each process takes the first block that nobody holds, writes it in place and then adds its line. A
lock dies with its holder, so another process takes what a killed one held. Machines may share the
folder where its file system knows locks.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import Timeout

from kdlab.cache import locked, write_atomic
from kdlab.progress import progress

LINE = 74  # bytes of a line of blocks.txt: 8 digits, a space, 64 hex digits, a line end
WAIT = 0.2  # seconds between two looks at what other processes compute
MAX_STATE = 1 << 20  # bytes of a state.json; ours have 1 kB
DTYPES = {"float32": "<f4", "float16": "<f2"}


class Blocks:
    """The bookkeeping of one such array; numbers of blocks count from 0.

    about: what state.json holds. count: blocks in all. left: those to be computed, after
    `prepare`. path, shape, dtype, header (bytes of the .npy before its numbers): of the file.
    """

    def __init__(self, folder: Path, about: dict, name: str):
        self.folder, self.path = folder, folder / f"{name}.npy"
        self.about = json.loads(json.dumps(about))  # a tuple is a list, as in state.json
        self.shape, self.block = tuple(about["shape"]), about["block"]
        self.dtype = np.dtype(DTYPES[about["dtype"]])
        self.count = -(-self.shape[0] // self.block)
        self.left, self._seen = set(), 0  # _seen: bytes of blocks.txt known when `left` was made
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {
            "descr": self.dtype.str, "fortran_order": False, "shape": self.shape})
        self.header = header.getvalue()

    def rows(self, block: int) -> tuple[int, int]:
        """The first row of a block and the first after it."""
        return block * self.block, min((block + 1) * self.block, self.shape[0])

    def place(self, row: int) -> int:
        """Where in the file a row begins, in bytes; of the row after the last: the file's size."""
        return len(self.header) + row * math.prod(self.shape[1:]) * self.dtype.itemsize

    def finished(self, seen: int = 0) -> tuple[dict[int, str], int]:
        """Finished block -> SHA-256, by blocks.txt from byte `seen` on; and the byte it ended at.

        A later line replaces an earlier one; what is no line (a torn page after a power cut) says
        nothing, so that its block is computed again.
        """
        found = {}
        with contextlib.suppress(FileNotFoundError), open(self.folder / "blocks.txt", "rb") as file:
            file.seek(seen)
            while len(line := file.read(LINE)) == LINE:
                seen += LINE
                if line[:8].isdigit() and int(line[:8]) < self.count and line[8::65] == b" \n":
                    found[int(line[:8])] = line[9:-1].decode("ascii", "replace")
        return found, seen

    def damaged(self, finished: dict[int, str]) -> Iterator[int]:
        """Of these blocks those whose bytes have not this SHA-256, in order; reads them all."""
        try:
            with open(self.path, "rb") as file:
                for block in progress(sorted(finished), f"hashing blocks of {self.path.name}"):
                    start, end = map(self.place, self.rows(block))
                    file.seek(start)
                    if hashlib.sha256(file.read(end - start)).hexdigest() != finished[block]:
                        yield block
        except OSError as error:
            raise OSError(f"{self.path} cannot be read ({error.strerror or error}); delete "
                          f"{self.folder}, and it is computed anew") from error

    def prepare(self, verify: bool = False) -> None:
        """Find out which blocks are left, and make the files that are missing.

        Finished blocks are hashed where some are left or the file had to be mended, or to verify;
        those that are damaged are left too. One line to stderr where something is not as it was
        written; OSError where the disk is too small, before anything is written.
        """
        with locked(self.folder / "state.json"):
            stored, written = read_state(self.folder), self.folder / "blocks.txt"
            if stored != self.about and ((self.folder / "state.json").exists() or written.exists()):
                print(f"{self.folder / 'state.json'} is not about this array; it is computed anew",
                      file=sys.stderr)
                written.unlink(missing_ok=True)
            finished, self._seen = self.finished()
            self._check_space(self.count - len(finished))
            fits = self._fits()
            if not fits:
                with open(self.path, "r+b" if self.path.exists() else "wb") as file:
                    file.write(self.header)
                    file.truncate(self.place(self.shape[0]))
            if stored != self.about:
                write_atomic(self.folder / "state.json", json.dumps(self.about))
        self.left = set(range(self.count)) - finished.keys()
        if self.left or verify or not fits:
            damaged = [*self.damaged(finished)]
            self.left.update(damaged)
            if damaged:
                print(f"{len(damaged)} of {self.count} blocks of {self.path} are not what was "
                      f"written (first: {damaged[0]}); they are computed anew", file=sys.stderr)

    def fill(self, compute: Callable[[int, int], np.ndarray]) -> Iterator[int]:
        """Compute what of `left` no other process does; yields each block once it is there.

        compute(start, stop) -> (stop - start, ...), what belongs into these rows. What it raises
        ends the loop; OSError, in words, where the disk is full. Finished blocks stay.
        """
        claims = self.folder / "claims"
        claims.mkdir(exist_ok=True)
        while self.left:
            for block in sorted(self.left):
                claim = locked(claims / str(block))
                try:
                    claim.acquire(timeout=0)
                except Timeout:
                    continue
                try:
                    fresh, self._seen = self.finished(self._seen)
                    if block not in fresh:  # else another has just finished it
                        fresh[block] = self._write(block, compute(*self.rows(block)))
                    with contextlib.suppress(OSError):  # Windows keeps an open file
                        Path(claim.lock_file).unlink()  # a large set has 10,000 of them
                finally:
                    claim.release()
                break
            else:  # others hold all that is left
                time.sleep(WAIT)
                fresh, self._seen = self.finished(self._seen)
            for block in sorted(self.left & fresh.keys()):
                self.left.discard(block)
                yield block

    def _write(self, block: int, values: np.ndarray) -> str:
        """Put a block in its place, then its line beside those that are safe; its SHA-256.

        Plain writes, not a writable memory map: a full disk is an OSError here, a crash there.
        """
        content = values.astype(self.dtype, copy=False).tobytes()
        found, lines = hashlib.sha256(content).hexdigest(), self.folder / "blocks.txt"
        try:
            with open(self.path, "r+b") as file:
                file.seek(self.place(self.rows(block)[0]))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with locked(lines), open(lines, "ab") as file:
                file.truncate(file.tell() // LINE * LINE)  # half a line of a killed process
                file.write(f"{block:08d} {found}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"{self.path}: {error.strerror or error}; what was finished stays, so "
                          "make room and run the same again") from error
        return found

    def _fits(self) -> bool:
        """Has the file the size and the header it should have?"""
        return (self.path.exists() and self.path.stat().st_size == self.place(self.shape[0])
                and np.fromfile(self.path, np.uint8, len(self.header)).tobytes() == self.header)

    def _check_space(self, left: int) -> None:
        """OSError that says how many GB are missing for so many blocks."""
        there = self.path.stat() if self.path.exists() else None
        taken = getattr(there, "st_blocks", 0) * 512  # of a file with holes; 512 by POSIX
        need = min(left * (self.place(self.block) - len(self.header)),
                   max(self.place(self.shape[0]) - taken, 0))
        free = shutil.disk_usage(self.folder).free
        if need > free:
            half = ", or take dtype='float16'" if self.dtype.itemsize == 4 else ""
            raise OSError(f"{(need - free) / 1e9:.1f} GB are missing: {self.path} needs "
                          f"{need / 1e9:.1f} GB more, the disk has {free / 1e9:.1f}; make room, "
                          f"point KDLAB_CACHE at another disk{half}")


def read_state(folder: Path) -> dict | None:
    """state.json of a folder; None where it is missing or describes no such array."""
    path = folder / "state.json"
    try:
        if path.stat().st_size > MAX_STATE:
            return None
        about = json.loads(path.read_text())
        sizes = [*about["shape"], about["block"]]
        fine = all(type(x) is int and x > 0 for x in sizes) and about["dtype"] in DTYPES
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return about if fine else None
