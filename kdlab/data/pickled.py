"""How pickles write what a set of pictures is made of: numbers, text, bytes and uint8 arrays.

Python 2 and 3 and numpy, protocols 0 to 5. Every function takes what the file says and gives the
value, or raises ValueError; none imports or calls what a file names. `kdlab.data.unpickle` is the
machine that uses them.
"""

import codecs
import enum
import math
import re
from dataclasses import dataclass

import numpy as np

AXES = 4  # of an array, at most; ours
DIGITS = 20  # of a number in text: those of 64 bits
_LITERAL = re.compile(rb"""(?:[^\\]++|\\(?:x[0-9a-fA-F]{2}|[\\'"nrt]))*+""")


class Known(enum.Enum):
    """What a name in a file may stand for; nothing is ever imported or called."""

    BYTES = enum.auto()
    ENCODE = enum.auto()
    NDARRAY = enum.auto()
    DTYPE = enum.auto()
    RECONSTRUCT = enum.auto()
    FROMBUFFER = enum.auto()
    UINT8 = enum.auto()  # no name: what DTYPE makes of "u1"


NAMES = {"__builtin__.bytes": Known.BYTES, "builtins.bytes": Known.BYTES,
         "_codecs.encode": Known.ENCODE, "numpy.ndarray": Known.NDARRAY,
         "numpy.dtype": Known.DTYPE} | {
    f"numpy.{core}.{name}": known for core in ("core", "_core")  # before and since numpy 2
    for name, known in (("multiarray._reconstruct", Known.RECONSTRUCT),
                        ("numeric._frombuffer", Known.FROMBUFFER))}


@dataclass(eq=False, slots=True)
class Array:
    """A uint8 array: `data` holds its values, in the order "C" or "F"."""

    shape: tuple[int, ...] = ()
    data: bytes | None = None
    order: str = "C"

    def values(self) -> np.ndarray:
        """The array itself, read-only, without a copy."""
        return np.ndarray(self.shape, np.uint8, self.data, order=self.order)


class Arguments(tuple):
    """A tuple with text, None or a `Known` in it: for a call, never for a result."""


def called(call: object, arguments: object) -> object:
    """What the "call" stands for, if it is one of the five by which bytes and arrays are written.

    An array of before protocol 5 is made empty; `filled` gives it its values.
    """
    match call, arguments:
        case Known.BYTES, ():
            return b""
        case Known.ENCODE, (str(text), "latin1" | "latin-1"):
            return text.encode("latin-1")
        case Known.DTYPE, ("u1" | b"u1", 0, 1):
            return Known.UINT8
        case Known.RECONSTRUCT, (Known.NDARRAY, (0,), "b" | b"b"):
            return Array()
        case Known.FROMBUFFER, (bytes(data), Known.UINT8, tuple(shape), "C" | "F" as order):
            return Array(_fitting(shape, data), data, order)
    raise ValueError(f"{kind(call)} with such arguments makes neither bytes nor a uint8 array")


def filled(target: object, state: object) -> None:
    """Set the state of an empty array; that of the dtype must be the one it has."""
    match target, state:
        case Known.UINT8, (3, "|" | b"|", None, None, None, -1, -1, 0):
            return
        case Array(data=None), (1, tuple(shape), Known.UINT8, 0 | 1 as fortran, bytes(data)):
            target.shape, target.data = _fitting(shape, data), data
            target.order = "F" if fortran else "C"
            return
    raise ValueError(f"{kind(target)} with such a state is no uint8 array")


def _fitting(shape: tuple, data: bytes) -> tuple[int, ...]:
    """The shape, if an array of it has so many bytes."""
    if not (1 <= len(shape) <= AXES and all(type(n) is int and n >= 0 for n in shape)
            and math.prod(shape) == len(data)):
        raise ValueError(f"the array's shape does not fit its {len(data)} bytes")
    return shape


def kind(value: object) -> str:
    """What a value is, in words that no file can choose."""
    if type(value) is Arguments:
        return "a tuple with text, None or a name in it"
    return value.name if type(value) is Known else type(value).__name__


def decimal(raw: bytes) -> int:
    """A number in text; Python 2 ends long ones with L."""
    raw = raw.removesuffix(b"L")
    if len(raw) > DIGITS or not raw.removeprefix(b"-").isdigit():
        raise ValueError("its argument is no number")
    return int(raw)


def _integer(raw: bytes) -> int | bool:
    """As `decimal`; 00 and 01 are False and True."""
    return raw == b"01" if raw in (b"00", b"01") else decimal(raw)


def _signed(raw: bytes) -> int:
    if len(raw) > 8:
        raise ValueError("its argument has more than 64 bits")
    return int.from_bytes(raw, "little", signed=True)


def unsigned(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _unquoted(raw: bytes) -> bytes:
    """What a Python 2 literal stands for; the pattern lets through only what its repr wrote."""
    ends, inner = raw[:1] + raw[1:][-1:], raw[1:-1]
    if ends not in (b"''", b'""') or not _LITERAL.fullmatch(inner):
        raise ValueError("its argument is no quoted string")
    return codecs.escape_decode(inner)[0]


VALUES = {  # the instructions that push one value: what they make of their argument
    "NONE": lambda raw: None, "NEWTRUE": lambda raw: True, "NEWFALSE": lambda raw: False,
    "INT": _integer, "LONG": decimal, "LONG1": _signed,
    "BININT": _signed, "BININT1": unsigned, "BININT2": unsigned,
    "STRING": _unquoted, "BINSTRING": bytes, "SHORT_BINSTRING": bytes,
    "BINBYTES": bytes, "SHORT_BINBYTES": bytes, "BYTEARRAY8": bytes,
    "UNICODE": lambda raw: raw.decode("raw-unicode-escape"),
    "BINUNICODE": bytes.decode, "SHORT_BINUNICODE": bytes.decode,
    "EMPTY_LIST": lambda raw: [], "EMPTY_TUPLE": lambda raw: (),
}
