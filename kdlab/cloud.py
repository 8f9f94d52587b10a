"""A cloud of points, as one reads it: in blocks, checked, scaled, about its middle.

What `kdlab.neighbours` and `kdlab.dimension` stand on. The points are never copied as a whole: they
may lie in a memory map longer than the memory, or on a GPU.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

BLOCK = 2048  # rows read together, ours: their products among themselves take 16 MB
SOME = 1000  # rows whose median is the centre, ours: near the mean, but no outlier moves it
PAIRS = 2**16  # pairs measured together on a GPU, ours: 0.5 GB for 512 dimensions


class Cloud:
    """Points x (n, D): a NumPy array, a memory map or a torch tensor.

    float32 and float64 are used where they are; half precision becomes float32, integers float64.
    normalize: every row is divided by its length, in float64.
    Raises ValueError for another shape, and naming the first row that is not finite, or that is
    zero and should get length 1.
    """

    def __init__(self, x: np.ndarray | Tensor, normalize: bool = False):
        self.x = _usable(x)
        n, D = self.x.shape
        self.device = self.x.device if isinstance(self.x, Tensor) else torch.device("cpu")
        self.index = np.arange(n)
        self.weight = np.ones(n)
        largest = np.empty(n)
        for part in parts(n):
            largest[part] = self.rows(part).abs().amax(1).cpu()
        broken = ~np.isfinite(largest)
        if broken.any():
            raise ValueError(f"row {broken.argmax()} is not finite (NaN or infinity); so are "
                             f"{broken.sum()} of {n} in all. Leave them out")
        if normalize:
            if not largest.all():
                raise ValueError(f"row {largest.argmin()} is zero and has no direction. Leave it "
                                 "out, or do not normalize")
            for part in parts(n):
                self.weight[part] = 1 / largest[part]  # first, or a square could overflow
                self.weight[part] /= self.rows(part).norm(dim=1).cpu().numpy()
            self.unit = 1.0
        else:  # a power of two changes no digit, and squares of 1 and less fit into float32
            self.unit = 2.0 ** int(np.frexp(largest.max(initial=0))[1])
            self.weight /= self.unit
        some = np.unique(np.linspace(0, max(n - 1, 0), SOME).astype(int))[:n]
        self.centre = self.rows(some).median(0).values if n else torch.zeros(D)
        self.square = np.empty(n)  # of the length of `centred` rows
        for part in parts(n):
            self.square[part] = self.centred(part, torch.float64).square().sum(1).cpu()

    def __len__(self) -> int:
        return len(self.index)

    def parts(self) -> Iterator[slice]:
        """Slices of BLOCK rows that make up all."""
        return parts(len(self))

    def subset(self, rows: np.ndarray) -> "Cloud":
        """The points of these rows (m,); everything is shared."""
        some = object.__new__(Cloud)
        some.__dict__.update(self.__dict__, index=self.index[rows])
        return some

    def distinct(self) -> "Cloud":
        """The points without those equal to an earlier one (once scaled; -0 is 0)."""
        first: dict[bytes, int] = {}  # 128 bits stand for a row: two agree by chance never
        for part in self.parts():
            for row, values in enumerate((self.rows(part) + 0.0).cpu().numpy(), part.start):
                first.setdefault(blake2b(values.data, digest_size=16).digest(), row)
        return self.subset(np.fromiter(first.values(), np.int64, len(first)))

    def rows(self, part: slice | np.ndarray) -> Tensor:
        """(m, D) float64 on the cloud's device, scaled: lengths 1, or coordinates of 1 at most."""
        where = self.index[part]
        if isinstance(self.x, Tensor):
            rows = self.x[torch.from_numpy(where).to(self.device)]
        else:
            rows = torch.from_numpy(self.x[where])
        return rows.double() * torch.from_numpy(self.weight[where]).to(self.device)[:, None]

    def centred(self, part: slice | np.ndarray, dtype: torch.dtype) -> Tensor:
        """(m, D) `rows` about the cloud's middle."""
        return (self.rows(part) - self.centre).to(dtype)

    def distances(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """(P,) Euclidean distances of rows i to rows j, (P,) each: by differences, in float64."""
        if isinstance(self.x, Tensor):
            found = [(self.rows(i[part]) - self.rows(j[part])).norm(dim=1).cpu().numpy()
                     for part in parts(len(i), PAIRS)]
            return np.concatenate(found) * self.unit
        i, j, out, loop = self.index[i], self.index[j], np.empty(len(i)), compiled(_measure)
        threads(lambda part: loop(self.x, self.weight, i[part], j[part], out[part]), len(i))
        return out * self.unit


def read(path: str | Path) -> np.ndarray:
    """A .npy file as a memory map.

    Raises FileNotFoundError, and ValueError for a file of another kind, of Python objects (they
    are not loaded) or cut short.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path} is not a .npy file; write one with numpy.save")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:
        if "Python objects" in str(error):
            raise ValueError(f"{path} holds Python objects, which could be programs and are not "
                             "loaded; save float32 or float64") from error
        raise ValueError(f"{path} is cut short or damaged ({error})") from error


def parts(n: int, size: int | None = None) -> Iterator[slice]:
    """Slices of `size` (None: BLOCK) that make up n; the last may be shorter."""
    size = size or BLOCK
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def threads(work: Callable[[slice], None], n: int) -> None:
    """work(slice) for slices that make up n, one in each of the threads that torch may use."""
    count = torch.get_num_threads()
    with ThreadPoolExecutor(count) as pool:  # anew each time: a kept one would not survive a fork
        list(pool.map(work, parts(n, max(-(-n // count), 1))))


@functools.cache
def compiled(loop: Callable) -> Callable:
    """A loop as machine code, kept on disk beside its file or in the user's cache folder."""
    from numba import njit  # takes a quarter of a second: not before it is needed

    # Sums in any order, for vectors; not "contract": a fused a*v - b*w is not 0 for equal rows.
    options = {"nogil": True, "fastmath": {"reassoc"}}
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # numba finds no folder that it may write to: compile in each process
        return njit(**options)(loop)


def _usable(x: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """(n, D) float32 or float64: rows in order in an array, or a tensor on a GPU."""
    if isinstance(x, Tensor):
        x = x.detach()
        if x.is_complex():
            raise ValueError(f"points must be real numbers, not {x.dtype}")
        if x.dtype not in (torch.float32, torch.float64):
            x = x.float() if x.is_floating_point() else x.double()
    if not (isinstance(x, Tensor) and x.device.type != "cpu"):
        x = np.asarray(x)  # what is mapped stays so
        if x.dtype.kind not in "fiub":
            raise ValueError(f"points must be real numbers, not {x.dtype}")
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float32 if x.dtype == np.float16 else np.float64)
        x = np.ascontiguousarray(x) if x.ndim == 2 else x
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"points must be the rows of a table (n, D), not {tuple(x.shape)}")
    return x


def _measure(x, weight, i, j, out):  # for numba, which checks nothing
    for p in range(len(i)):
        a, b, total = i[p], j[p], 0.0
        for d in range(x.shape[1]):
            difference = x[a, d] * weight[a] - x[b, d] * weight[b]
            total += difference * difference
        out[p] = np.sqrt(total)
