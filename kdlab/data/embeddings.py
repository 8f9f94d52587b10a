"""What a frozen teacher says of every picture and its mirror, computed once.

With flips as the only augmentation a teacher has exactly two answers an image; read from a file,
they make a distillation step cost what a plain student step costs. The file is an ordinary .npy,
memory-mapped, in a folder named by teacher, set and preprocessing; any number of processes fill it
together, and the hash of every part says whether it is still what was written (kdlab.data.blocks).
"""

import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdlab.cache import cache_dir, digest
from kdlab.data.blocks import DTYPES, Blocks, read_state
from kdlab.outputs import Output
from kdlab.progress import progress
from kdlab.teachers import Teacher

FORMAT = 2
BLOCK = 512  # pictures computed, written and hashed at once; ours: 2 MB of float32 at D = 512
NAME = "embeddings"


class EmbeddingCache:
    """A finished file of embeddings; stands in for the teacher in training.

    array: (N, 2, D) float32 or float16, read-only; [i, 0] the picture, [i, 1] its mirror.
    identity: whose embeddings of what: teacher (hash), faces (key), contract, shape, dtype.
    """

    def __init__(self, folder: str | Path, verify: bool = False):
        """Open what `embed_set` left.   verify: hash all of it, see `verify()`.

        ValueError where it is unfinished, cut short or (with verify) damaged.
        """
        folder = Path(folder)
        self.identity = _identity(folder)
        self._blocks = self.identity and Blocks(folder, self.identity, NAME)
        if self._blocks is None or len(self._blocks.finished()[0]) < self._blocks.count:
            raise ValueError(f"the embeddings in {folder} are not finished; run embed_set again")
        path = self._blocks.path
        try:
            self.array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is missing or truncated ({error}); run embed_set "
                             "again") from error
        if self.array.shape != self._blocks.shape or self.array.dtype != self._blocks.dtype:
            raise ValueError(f"{path} holds {self.array.shape} {self.array.dtype}, not what its "
                             "state.json says; run embed_set again")
        if verify:
            self.verify()

    def __len__(self) -> int:
        return len(self.array)

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return self.array.nbytes

    def __call__(self, index: Tensor, flipped: Tensor) -> Output:
        """index: (B,) int64 rows; flipped: (B,) bool.   Output with embedding (B, D) float32."""
        rows, mirror = index.cpu().numpy(), flipped.cpu().numpy().astype(np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.array):
            raise IndexError(f"the cache holds pictures 0 to {len(self.array) - 1}, asked were "
                             f"{rows.min()} to {rows.max()}: it belongs to another set")
        _announce(self.array, rows, mirror)
        found = self.array[rows, mirror].astype(np.float32, copy=False)
        return Output(torch.from_numpy(found).to(index.device))

    def check(self, teacher: Teacher | None = None, faces=None) -> None:
        """ValueError in words unless these are the embeddings of this teacher and this set."""
        mend, known = "compute them with embed_set(teacher, faces)", self.identity
        if teacher is not None and known["teacher"] != teacher.hash:
            raise ValueError("the cached embeddings are another teacher's "
                             f"({known['teacher'][:12]}, not {teacher.hash[:12]}); {mend}")
        if teacher is not None and known["contract"] != teacher.contract:
            mine, theirs = known["contract"], teacher.contract
            differ = ", ".join(f"{key} {mine.get(key)}, not {theirs.get(key)}"
                               for key in sorted(mine.keys() | theirs)
                               if mine.get(key) != theirs.get(key))
            raise ValueError("the cached embeddings were made under another contract (crop, "
                             f"scaling or centring): {differ}; {mend}")
        if faces is not None and known["faces"] != faces.key:
            raise ValueError("the cached embeddings are of other pictures "
                             f"({known['faces'][:12]}, not {faces.key[:12]}); {mend}")

    def verify(self) -> None:
        """Hash the whole file; ValueError that names the first block that is not as written."""
        for block in self._blocks.damaged(self._blocks.finished()[0]):
            start, stop = self._blocks.rows(block)
            raise ValueError(f"block {block} of {self._blocks.path} (pictures {start} to "
                             f"{stop - 1}) is not what was written; embed_set(teacher, faces, "
                             "verify=True) computes it anew")


def embed_set(teacher: Teacher, faces, batch: int = 64, *, dtype: str = "float32",
              verify: bool = False) -> EmbeddingCache:
    """Both embeddings of every picture, from the cache folder or computed into it.

    faces: a FaceSet, an ImageFolder, or whatever has `len`, `key`, `sizes` and `read`; a block of
    pictures is read at a time. batch: pictures the teacher is given at once, 512 at most; with one
    batch the file is the same, bit for bit, however many processes fill it.
    dtype: float16 halves the file (12 GB for MS1MV2's 5.8 million pictures at D = 512) and moves a
    cosine by 1.3e-5 (root mean square at D = 512; 7e-5 at most among a million pairs; measured):
    right for large sets, the more so as bf16, which trains them, is eight times as coarse. float32
    where a run must equal, number by number, one with the teacher itself.
    verify: hash a finished file too, as an unfinished one always is; damaged blocks are computed
    anew.

    Every process that calls this takes its share and returns when all is there; what a killed one
    had finished stays. Raises ValueError where the set lacks the teacher's crop or an embedding is
    not finite, OSError where the disk is too small or gets full (what was finished stays).
    """
    crop, size = teacher.contract["crop"], teacher.contract["size"]
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, not {dtype!r}")
    if batch < 1:
        raise ValueError(f"batch must be 1 or more, not {batch}")
    if not len(faces) or faces.sizes.get(crop, 0) < size:
        have = ", ".join(f"{name} {side}" for name, side in faces.sizes.items()) or "none"
        raise ValueError(f"the teacher looks at the {crop!r} crop at {size} pixels; the set has "
                         f"{len(faces)} pictures in the crops: {have}")
    identity = {"format": FORMAT, "teacher": teacher.hash, "faces": faces.key,
                "contract": teacher.contract, "dtype": dtype, "block": BLOCK,
                "shape": [len(faces), 2, teacher.embedding_size]}
    folder = cache_dir(NAME, digest(identity))

    def compute(start: int, stop: int) -> np.ndarray:
        images = faces.read(crop, size, np.arange(start, stop))
        found = torch.cat([_both(teacher, x) for x in images.split(batch)]).numpy()
        return _stored(found, dtype, lambda row: _called(faces, start + row))

    blocks = Blocks(folder, identity, NAME)
    blocks.prepare(verify)
    for _ in progress(blocks.fill(compute), "teacher embeddings, blocks", len(blocks.left)):
        pass
    return EmbeddingCache(folder)


def _both(teacher: Teacher, images: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 2, D) float32 on the CPU: pictures and mirrors."""
    images = images.to(teacher.embedding_mean.device)
    pair = [teacher(images).embedding, teacher(images.flip(3)).embedding]
    return torch.stack(pair, 1).float().cpu()


def _stored(found: np.ndarray, dtype: str, called: Callable[[int], str]) -> np.ndarray:
    """(n, 2, D) as `dtype`; ValueError that names the first picture unfit for it."""
    with np.errstate(over="ignore"):  # an infinity is refused below
        stored = found.astype(dtype)
    for values, reason in (
            (found, "is not finite; the teacher's file or that picture is damaged"),
            (stored, f"goes beyond what {dtype} holds; take dtype='float32'")):
        bad = ~np.isfinite(values).all((1, 2))
        if bad.any():
            raise ValueError(f"the teacher's embedding of {called(bad.argmax())} {reason}")
    return stored


def _called(faces, row: int) -> str:
    """How a person finds a picture: its number and, of a folder, its file."""
    return f"picture {row}" + (f" ({faces.name(row)})" if hasattr(faces, "name") else "")


def _announce(array: np.memmap, rows: np.ndarray, mirror: np.ndarray) -> None:
    """Ask the system for these rows all at once, where it can be asked.

    Else each that is not in memory is waited for alone, with 128 kB around it: of a file of 12 GB
    on an SSD the first batch of 512 took 3 s, this way 50 ms (`benchmarks/teacher_cache.py`).
    """
    if not hasattr(mmap, "MADV_WILLNEED"):
        return
    size = array.strides[1]
    first = array.offset + rows * array.strides[0] + mirror * size
    begin = first // mmap.PAGESIZE * mmap.PAGESIZE
    for start, length in zip(begin.tolist(), (first + size - begin).tolist(), strict=True):
        array.base.madvise(mmap.MADV_WILLNEED, start, length)


def _identity(folder: Path) -> dict | None:
    """What state.json says; None where it is missing or not about embeddings."""
    known = read_state(folder)
    fine = (known is not None and known.get("format") == FORMAT and len(known["shape"]) == 3
            and known["shape"][1] == 2 and {"teacher", "faces", "contract"} <= known.keys())
    return known if fine else None
