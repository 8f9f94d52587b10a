"""What a frozen teacher says of every picture and its mirror, computed once.

With flips as the only augmentation a teacher has exactly two answers an image; read from a file,
they make a distillation step cost what a plain student step costs. The file is an ordinary .npy
of float32, memory-mapped: float16 would halve it, but would round cosines by up to 5e-4, and
thresholds at a low false positive rate lie closer together than that; a cached run must equal a
run with the teacher.
"""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdlab.cache import cache_dir, digest, locked, write_atomic
from kdlab.data.faces import FaceSet
from kdlab.outputs import Output
from kdlab.progress import progress
from kdlab.teachers import Teacher

FORMAT = 1
BLOCK = 8  # batches between two saved states: seconds of work at most are lost


class EmbeddingCache:
    """A finished file of embeddings; stands in for the teacher in training.

    array: (N, 2, D) float32, read-only; [i, 0] the picture, [i, 1] its mirror.
    identity: whose embeddings of what: teacher (hash), faces (key), contract, shape.
    """

    def __init__(self, folder: str | Path):
        """Open what `embed_set` left. ValueError where it is unfinished or damaged."""
        folder = Path(folder)
        state = _state(folder)
        if state is None or state["rows"] != state["identity"]["shape"][0]:
            raise ValueError(f"the embeddings in {folder} are not finished; run embed_set again")
        self.identity = state["identity"]
        try:
            self.array = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / 'embeddings.npy'} is missing or truncated ({error}); "
                             "run embed_set again") from error
        if list(self.array.shape) != self.identity["shape"] or self.array.dtype != np.float32:
            raise ValueError(f"{folder / 'embeddings.npy'} holds {self.array.shape} "
                             f"{self.array.dtype}, not what its state.json says; delete {folder}")

    def __len__(self) -> int:
        return len(self.array)

    def __call__(self, index: Tensor, flipped: Tensor) -> Output:
        """index: (B,) int64 rows; flipped: (B,) bool.   Output with embedding (B, D) float32."""
        rows, mirror = index.cpu().numpy(), flipped.cpu().numpy().astype(np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.array):
            raise IndexError(f"the cache holds pictures 0 to {len(self.array) - 1}, asked were "
                             f"{rows.min()} to {rows.max()}: it belongs to another set")
        return Output(torch.from_numpy(self.array[rows, mirror]).to(index.device))

    def check(self, teacher: Teacher | None = None, faces: FaceSet | None = None) -> None:
        """ValueError in words unless these are the embeddings of this teacher and this set."""
        mend = "compute them with embed_set(teacher, faces)"
        if teacher is not None and self.identity["teacher"] != teacher.hash:
            raise ValueError("the cached embeddings are another teacher's "
                             f"({self.identity['teacher'][:12]}, not {teacher.hash[:12]}); {mend}")
        if teacher is not None and self.identity["contract"] != teacher.contract:
            raise ValueError("the cached embeddings were made under another contract (crop, "
                             f"scaling or centring); {mend}")
        if faces is not None and self.identity["faces"] != faces.key:
            raise ValueError("the cached embeddings are of other pictures "
                             f"({self.identity['faces'][:12]}, not {faces.key[:12]}); {mend}")


def embed_set(teacher: Teacher, faces: FaceSet, batch: int = 64) -> EmbeddingCache:
    """Both embeddings of every picture, from the cache folder or computed into it.

    An interrupted run goes on where it stopped; of two processes one computes and the other waits.
    Raises ValueError where the set lacks the teacher's crop or an embedding is not finite, OSError
    where the disk is full (what was computed stays).
    """
    crop, size = teacher.contract["crop"], teacher.contract["size"]
    if not len(faces) or crop not in faces.crops or faces.crops[crop].shape[-1] < size:
        have = ", ".join(f"{name} {c.shape[-1]}" for name, c in faces.crops.items()) or "none"
        raise ValueError(f"the teacher looks at the {crop!r} crop at {size} pixels; the set has "
                         f"{len(faces)} pictures in the crops: {have}")
    identity = {"format": FORMAT, "teacher": teacher.hash, "faces": faces.key,
                "contract": teacher.contract,
                "shape": [len(faces), 2, teacher.embedding_size]}
    folder = cache_dir("embeddings", digest(identity))
    with locked(folder / "embeddings.npy"):
        rows = _usable_rows(folder, identity)
        if rows < len(faces):
            _compute(teacher, faces, batch, folder, identity, rows)
    return EmbeddingCache(folder)


def _compute(teacher: Teacher, faces: FaceSet, batch: int, folder: Path, identity: dict,
             rows: int) -> None:
    """Append the embeddings from `rows` on; after each block the state says how many are safe.

    Plain writes, not a writable memory map: a full disk is an OSError here, a crash there.
    """
    crop, size = teacher.contract["crop"], teacher.contract["size"]
    N = len(faces)
    with open(folder / "embeddings.npy", "r+b" if rows else "wb") as file:
        if not rows:
            file.write(_header(identity["shape"]))
        file.truncate(_place(identity["shape"], rows))  # what an interrupted block had written
        file.seek(0, os.SEEK_END)
        step = BLOCK * batch
        for start in progress(range(rows, N, step), "teacher embeddings"):
            stop = min(start + step, N)
            part = FaceSet({crop: faces.crops[crop][start:stop]}, faces.labels[start:stop],
                           faces.key).pixels(crop, size)
            found = torch.cat([_both(teacher, x) for x in part.split(batch)]).numpy()
            bad = ~np.isfinite(found).all((1, 2))
            if bad.any():
                raise ValueError(f"the teacher's embedding of picture {start + bad.argmax()} is "
                                 "not finite; the teacher's file or that picture is damaged")
            file.write(found.astype("<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
            write_atomic(folder / "state.json", json.dumps({"rows": stop, "identity": identity}))


def _both(teacher: Teacher, images: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> (B, 2, D) float32 on the CPU: pictures and mirrors."""
    images = images.to(teacher.embedding_mean.device)
    pair = [teacher(images).embedding, teacher(images.flip(3)).embedding]
    return torch.stack(pair, 1).float().cpu()


def _usable_rows(folder: Path, identity: dict) -> int:
    """How many rows of an earlier run can be kept; a line to stderr where it must start anew."""
    if not (folder / "state.json").exists():
        return 0
    state, path, header = _state(folder), folder / "embeddings.npy", _header(identity["shape"])
    if state is None or state["identity"] != identity:
        reason = "is not about this teacher and this set"
    elif not path.exists() or path.stat().st_size < _place(identity["shape"], state["rows"]):
        reason = "promises more than embeddings.npy holds"
    elif np.fromfile(path, np.uint8, len(header)).tobytes() != header:
        reason = "lies beside an embeddings.npy of another shape"
    else:
        return state["rows"]
    print(f"{folder / 'state.json'} {reason}; the embeddings are computed anew", file=sys.stderr)
    (folder / "state.json").unlink()
    return 0


def _state(folder: Path) -> dict | None:
    """state.json: {"rows": finished, "identity": {...}}; None where it is missing or no such."""
    try:
        state = json.loads((folder / "state.json").read_text())
        identity, rows = state["identity"], state["rows"]
        N, two, D = identity["shape"]
        fine = (type(rows) is int and type(N) is int and type(D) is int and two == 2
                and 0 <= rows <= N and D > 0 and {"teacher", "faces", "contract"} <= set(identity))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return state if fine else None


def _header(shape: list[int]) -> bytes:
    """How a .npy file of little-endian float32 of this shape begins."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    return file.getvalue()


def _place(shape: list[int], rows: int) -> int:
    """Bytes of the file up to the end of so many rows; float32 takes 4."""
    return len(_header(shape)) + rows * shape[1] * shape[2] * 4
