"""Exercises about data and protocols: a record's bytes, a network's input, a fold, a template.

dmlc-core's recordio.h (the record), insightface's verification (the fold) and its evaluation of
IJB-C (the template).
"""

import struct
from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge

MAGIC = struct.pack("<I", 0xCED7230A)
LENGTH = (1 << 29) - 1  # the bits of a chunk's second word that are its length
GRID = np.arange(0, 4, 0.01)  # squared distances tried as thresholds: insightface's verification


def record_payload(fn: Callable) -> Callable:
    """Bytes of one record, as they lie in the file -> its payload, put together again.

    A record is one or several chunks: the magic word, a word of flag (upper 3 bits) and length
    (lower 29), little endian, so many bytes, zeros up to a multiple of 4. Between two chunks of a
    record the magic was cut out.
    """
    return judge("record_payload", fn, _payload, _payload_cases(), _PAYLOAD_MISTAKES,
                 ("its bytes", lambda found, data: np.frombuffer(found, np.uint8)))


def network_input(fn: Callable) -> Callable:
    """(3, S, S) uint8 RGB and a contract -> (3, S, S) float, as the network wants it.

    The contract's mean and divide (a number, or one for each colour) are of R, G and B, whatever
    its channels are: "RGB" or "BGR".
    """
    return judge("network_input", fn, _network_input, _input_cases(), _INPUT_MISTAKES)


def held_out_accuracy(fn: Callable) -> Callable:
    """Distances (P,), is_same (P,) bool, rows of a fold, thresholds tried -> the fold's accuracy.

    A pair is called the same person strictly below the threshold; of the thresholds that are best
    on all other pairs the first is taken.
    """
    return judge("held_out_accuracy", fn, _held_out, _fold_cases(), _FOLD_MISTAKES)


def template_of(fn: Callable) -> Callable:
    """Embeddings (n, D) and media (n,) of a template's pictures -> its vector (D,), of length 1.

    The mean of each medium's pictures, then the sum over media; norms of pictures are kept.
    """
    return judge("template_of", fn, _template, _template_cases(), _TEMPLATE_MISTAKES)


def _chunks(data: bytes, mask: int = LENGTH) -> list[bytes]:
    """The payload of each chunk."""
    found, at = [], 0
    while at + 8 <= len(data):
        length = struct.unpack_from("<I", data, at + 4)[0] & mask
        found.append(data[at + 8:at + 8 + length])
        at += 8 + length + -length % 4
    return found


def _payload(data: bytes) -> bytes:
    return MAGIC.join(_chunks(data))


def _file(*parts: bytes) -> bytes:
    """A record of these chunks."""
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)
                    for flag, part in zip(flags, parts, strict=True))


def _payload_cases() -> list[Case]:
    return [
        ("one chunk of 8 bytes", (_file(b"abcdefgh"),)),
        ("one chunk of 5 bytes, then 3 zeros", (_file(b"abcde"),)),
        ("a magic after 4 bytes: two chunks", (_file(b"abcd", b"efghij"),)),
        ("two of them side by side: three chunks, the middle one empty",
         (_file(b"abcd", b"", b"efghi"),)),
        ("the magic at the very start", (_file(b"", b"abc"),)),
    ]


_PAYLOAD_MISTAKES: list[Mistake] = [
    (lambda data: _chunks(data)[0],
     "the flag is not looked at: 1 says that chunks follow, up to the one with a 3"),
    (lambda data: b"".join(_chunks(data)),
     "the chunks are all there, but the magic that was cut out between them is not back"),
    (lambda data: MAGIC.join(_chunks(data)) + (b"" if len(_chunks(data)) == 1 else MAGIC),
     "the magic stands between two chunks of a record, not behind each"),
    (lambda data: data[8:],
     "that is everything behind the first eight bytes; the length says where the payload ends, and "
     "zeros fill up to a multiple of 4"),
    (lambda data: MAGIC.join(_chunks(data, 0xFFFFFFFF)),
     "the second word is taken for a length as it stands; its upper three bits are the flag"),
    (lambda data: data, "those are the bytes as they lie in the file, magic and lengths included"),
]


def _network_input(picture: np.ndarray, contract: dict) -> np.ndarray:
    mean, divide = (np.broadcast_to(contract[key], 3).reshape(3, 1, 1)
                    for key in ("mean", "divide"))
    x = (picture.astype(float) - mean) / divide
    return x[::-1] if contract["channels"] == "BGR" else x


def _input_cases() -> list[Case]:
    face = np.random.default_rng(23).integers(0, 256, (3, 2, 3), dtype=np.uint8)
    plain = {"channels": "RGB", "mean": [127.5] * 3, "divide": 127.5}
    torchvision = {"mean": [123.675, 116.28, 103.53], "divide": [58.395, 57.12, 57.375]}
    return [
        ("insightface's: RGB, (x - 127.5) / 127.5", (face, plain)),
        ("the same for a network that takes BGR", (face, plain | {"channels": "BGR"})),
        ("x / 255", (face, plain | {"mean": [0.0] * 3, "divide": 255.0})),
        ("ImageNet's: a number for each colour", (face, plain | torchvision)),
        ("ImageNet's, for a network that takes BGR", (face, torchvision | {"channels": "BGR"})),
    ]


def _parts(contract: dict) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.broadcast_to(contract[key], 3).reshape(3, 1, 1).astype(float)
                 for key in ("mean", "divide"))


def _turned(x: np.ndarray, contract: dict, how: Callable = lambda x: x[::-1]) -> np.ndarray:
    return how(x) if contract["channels"] == "BGR" else x


def _scaled(picture: np.ndarray, contract: dict) -> np.ndarray:
    mean, divide = _parts(contract)
    return (picture - mean) / divide


_INPUT_MISTAKES: list[Mistake] = [
    (_scaled, "the channels are not looked at: a network of BGR wants blue first"),
    (lambda x, c: _scaled(x, c)[::-1],
     "the channels are turned whatever the contract says; RGB stays as it is"),
    (lambda x, c: _scaled(_turned(x, c), c),
     "the channels are turned too early: mean and divide are of R, G and B, so red's would go to "
     "blue"),
    (lambda x, c: _turned(_scaled(x, c), c, lambda x: x[..., ::-1]),
     "the last axis runs across the picture, so that is its mirror; the channels are the first"),
    (lambda x, c: _turned(x / _parts(c)[1] - _parts(c)[0], c),
     "divided first, then the mean is of another scale: subtract it before"),
    (lambda x, c: _turned(x / _parts(c)[1], c), "the mean is not subtracted"),
    (lambda x, c: _turned(x - _parts(c)[0], c), "nothing is divided"),
    (lambda x, c: _turned((x - _parts(c)[0].astype(np.uint8)) / _parts(c)[1], c),
     "uint8 has no numbers below 0: 10 - 127 becomes 139; make the picture float first"),
    (lambda x, c: _turned((x - 127.5) / 127.5, c),
     "that is one contract's scaling; mean and divide stand in the contract"),
]


def _held_out(distance: np.ndarray, is_same: np.ndarray, fold: np.ndarray, grid: np.ndarray,
              chosen_on: str = "others", strict: bool = True, last: bool = False,
              told_of: str = "fold") -> float:
    others = np.setdiff1d(np.arange(len(is_same)), fold)
    rows = {"others": others, "fold": np.asarray(fold), "all": np.arange(len(is_same))}
    said = distance < grid[:, None] if strict else distance <= grid[:, None]  # (T, P)
    right = said == is_same
    hits = right[:, rows[chosen_on]].sum(1)
    best = len(grid) - 1 - hits[::-1].argmax() if last else hits.argmax()
    return float(right[best, rows[told_of]].mean())


def _fold_cases() -> list[Case]:
    def case(distance, is_same, fold, grid=GRID):
        return np.array(distance, float), np.array(is_same, bool), np.array(fold), np.array(grid)

    random = np.random.default_rng(33)
    is_same = random.integers(0, 2, 40).astype(bool)
    distance = np.where(is_same, 0.9, 1.4) + random.normal(0, 0.35, 40)
    coarse = [0.5, 1.0, 1.5]
    return [
        ("six pairs, the last two held out", case([1.7, 1.2, 0.7, 0.5, 0.5, 0.2],
                                                  [0, 0, 0, 1, 1, 1], [4, 5], coarse)),
        ("a pair whose distance is a threshold", case([0.4, 0.5, 1.2, 1.6, 0.5, 1.4],
                                                      [1, 0, 0, 0, 0, 0], [4, 5], coarse)),
        ("several thresholds are best on the others", case([0.2, 0.3, 1.7, 1.8, 0.4, 1.2],
                                                           [1, 1, 0, 0, 1, 0], [4, 5], coarse)),
        ("40 pairs, the first ten held out", case(distance, is_same, range(10))),
        ("40 pairs, the last ten held out", case(distance, is_same, range(30, 40))),
    ]


_FOLD_MISTAKES: list[Mistake] = [
    (lambda d, s, f, g: _held_out(d, s, f, g, chosen_on="all"),
     "the threshold was chosen with the fold's own pairs among them; leave them out"),
    (lambda d, s, f, g: _held_out(d, s, f, g, chosen_on="fold"),
     "the threshold was chosen on the fold itself, which is the best that it could ever be"),
    (lambda d, s, f, g: _held_out(d, s, f, g, told_of="others"),
     "that is the accuracy where the threshold was chosen; tell that of the fold"),
    (lambda d, s, f, g: _held_out(d, s, f, g, told_of="all"),
     "that is the accuracy of all pairs; the fold's own is asked for"),
    (lambda d, s, f, g: _held_out(d, s, f, g, strict=False),
     "a pair at the threshold is not the same person: strictly below"),
    (lambda d, s, f, g: _held_out(d, s, f, g, last=True),
     "of several best thresholds the first is taken, not the last"),
    (lambda d, s, f, g: _held_out(-d, s, f, -g[::-1]),
     "these are distances, not similarities: the same person lies below the threshold"),
]


def _template(embeddings: np.ndarray, media: np.ndarray) -> np.ndarray:
    found = sum(embeddings[media == medium].mean(0) for medium in np.unique(media))
    return found / np.linalg.norm(found)


def _template_cases() -> list[Case]:
    e = np.array([[3.0, 0], [1, 0], [0, 1], [0, 2], [0, 3]])
    random = np.random.default_rng(31)
    return [
        ("one photograph", (e[:1], np.array([7]))),
        ("two photographs of one length", (e[1:3], np.array([0, 1]))),
        ("a video of three pictures and a photograph",
         (np.array([[1.0, 0], [0, 1], [0, 2], [0, 3]]), np.array([4, 9, 9, 9]))),
        ("two videos, their pictures mixed", (e, np.array([1, 0, 1, 0, 0]))),
        ("ten pictures of three media, 8 dimensions",
         (random.normal(size=(10, 8)), random.integers(0, 3, 10))),
    ]


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


_TEMPLATE_MISTAKES: list[Mistake] = [
    (lambda e, media: _unit(e.mean(0)),
     "that is the mean of all pictures: a video of a hundred frames outweighs every photograph; "
     "take the mean of each medium first"),
    (lambda e, media: _unit(e).mean(0), "each picture was brought to length 1, the whole was not"),
    (lambda e, media: _template(_unit(e), media),
     "the pictures were brought to length 1 first; here a norm acts as a weight"),
    (lambda e, media: _unit(sum(_unit(e[media == m].mean(0)) for m in np.unique(media))),
     "each medium was brought to length 1 before the sum; only the whole is"),
    (lambda e, media: sum(e[media == m].mean(0) for m in np.unique(media)),
     "the sum over media is right, its length is not 1 yet"),
    (lambda e, media: e.mean(0), "that is the mean of all pictures, and its length is not 1"),
    (lambda e, media: _unit(e[0]), "that is the first picture alone"),
]
