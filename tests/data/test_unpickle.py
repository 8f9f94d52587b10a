"""Pickles read without pickle: what it reads, and that what it refuses never ran."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlab.data import pickle_machine
from kdlab.data.pickle_machine import DEPTH
from kdlab.data.pickled import Array
from kdlab.data.shown import shown
from kdlab.data.unpickle import loads, unpickled

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
JPEG = bytes(range(256)) + b"'\"\\\n\r\t\0\x1a"


def plain(value):
    """`Array` as numpy, so that values compare."""
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value.values() if type(value) is Array else value


def same(a, b):
    if type(a) is not type(b):
        return False
    if type(a) in (list, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b))


# What is read


arrays = st.builds(lambda n, wide, k: np.arange(k, k + n * wide, dtype=np.uint8).reshape(n, wide),
                   st.integers(0, 9), st.integers(1, 3), st.integers(0, 200))
arrays |= arrays.map(np.ravel) | arrays.map(np.asfortranarray) | arrays.map(lambda a: a[::2])
values = st.recursive(
    st.booleans() | st.integers(-2**63, 2**63 - 1) | st.binary(max_size=300) | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=12)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(values, st.sampled_from(PROTOCOLS))
def test_what_python_3_writes_is_read_as_it_was(value, protocol):
    assert same(plain(loads(pickle.dumps(value, protocol), "a.bin")), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bytes_of_every_kind_and_long_ones(protocol):
    value = ([b"", b"x", JPEG, JPEG * 300, JPEG], [True, False, 0, 1, 255, 65536, -1, 2**40])
    assert loads(pickle.dumps(value, protocol), "a.bin") == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dicts_and_text_only_where_they_are_asked_for(protocol):
    value = {b"data": np.arange(6, dtype=np.uint8), "labels": [1, 2], "name": "x", "none": {}}
    data = pickle.dumps(value, protocol)
    found = loads(data, "a", dicts=True)
    assert found.pop(b"data").values().tolist() == [0, 1, 2, 3, 4, 5]
    assert found == {"labels": [1, 2], "name": "x", "none": {}}
    with pytest.raises(ValueError, match="DICT: no set of pictures needs this"):
        loads(data, "a")
    with pytest.raises(ValueError, match="STOP: str is nothing that a set of pictures is made of"):
        loads(pickle.dumps("text", protocol), "a")


# ([JPEG head, "it's"], [True, False]) as Python 2's cPickle wrote it
PYTHON_2 = [
    b"((lp1\nS'\\xff\\xd8\\x00\\n\\\\'\np2\naS\"it's\"\np3\na(lp4\nI01\naI00\natp5\n.",
    b"(]q\x01(U\x05\xff\xd8\x00\n\\q\x02U\x04it'sq\x03e]q\x04(I01\nI00\netq\x05.",
    b"\x80\x02]q\x01(U\x05\xff\xd8\x00\n\\q\x02U\x04it'sq\x03e]q\x04(\x88\x89e\x86q\x05.",
    b"\x80\x02]q\x01(T\x05\0\0\0\xff\xd8\x00\n\\r\x02\0\1\0U\x04it'sq\x03e]q\x04(\x88\x89e\x86q\5.",
]
# numpy.array([7, 8, 9], numpy.uint8), protocols 0 and 2, by numpy 1.x
NUMPY_2 = [
    b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntS'b'\ntRp3\n(I1\n(I3\nt"
    b"cnumpy\ndtype\np4\n(S'u1'\nI0\nI1\ntRp5\n(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x07\\x08\\t'"
    b"\ntb.",
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\0\x85U\x01b\x87Rq\3"
    b"(K\x01K\x03\x85cnumpy\ndtype\nq\x04U\x02u1K\0K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ"
    b"\xff\xff\xff\xffK\0tb\x89U\x03\x07\x08\ttb.",
]


@pytest.mark.parametrize("data", PYTHON_2)
def test_what_python_2_wrote_as_str_becomes_bytes(data):
    value = ([b"\xff\xd8\0\n\\", b"it's"], [True, False])
    assert loads(data, "a.bin") == value == pickle.loads(data, encoding="bytes")
    assert loads(data, "a.bin")[1][0] is True


@pytest.mark.parametrize("data", NUMPY_2)
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_of_any_numpy(data, core):
    array = loads(data.replace(b"numpy.core", core), "a.bin")
    assert array.values().tolist() == [7, 8, 9] and array.values().dtype == np.uint8
    assert not array.values().flags.writeable


def test_numbers_of_python_2():
    data = b"(L5L\nL-7L\nI-3\n\x8a\x00\x8a\x08" + b"\xff" * 8 + b"t."
    assert loads(data, "a") == (5, -7, -3, 0, -1)


def test_one_value_in_two_places_is_one_object():
    data = pickle.dumps([[JPEG], [JPEG]] * 2, 2)
    first, _, third, _ = loads(data, "a")
    assert first is third
    itself = loads(b"]q\x00h\x00a.", "a")  # no reader of ours descends into such a list
    assert itself[0] is itself


# What is refused


def asked(name, call=b"(S'true'\ntR."):
    """A name of protocol 0, and what is done with it."""
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode() + call


MADE = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
UINT8 = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
TEXT = b"(c_codecs\nencode\nq\0X\x00\x40\0\0" + b"a" * 2**14 + b"X\6\0\0\0latin1\x86q\1"
HUGE = struct.pack("<Q", 2**62)
FRAME = b"\x95" + struct.pack("<Q", 2**25)


def shaped(shape, values=b"U\x01a", again=1):
    """An array whose state says so."""
    return MADE + (b"(K\x01" + shape + UINT8 + b"\x89" + values + b"tb") * again + b"."


HOSTILE = {
    # importing and calling
    "os.system": (asked("os.system"), "GLOBAL: it asks for 'os.system'"),
    "posix.system": (b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "'posix.system'"),
    "eval": (asked("__builtin__.eval"), "'__builtin__.eval'"),
    "builtins.exec": (asked("builtins.exec"), "'builtins.exec'"),
    "import": (asked("builtins.__import__"), "'builtins.__import__'"),
    "getattr chain": (asked("builtins.getattr", b"(cos\nsystem\nS'x'\ntR."), "builtins.getattr"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x10_core.os.systemx\x93.", "STACK_GLOBAL: it asks"),
    "dotted numpy": (b"\x80\x04\x8c\x05numpy\x8c\x09f2py.eval\x93.", "'numpy.f2py.eval'"),
    "numpy.load": (asked("numpy.load"), "'numpy.load'"),
    "numpy scalar": (pickle.dumps([np.bool_(True)], 2), "multiarray.scalar'"),
    "a newline in a name": (b"\x8c\x02os\x8c\x08sys\ntem\x1b\x93.", r"'os.sys\ntem\x1b'"),
    "name of bytes": (b"C\x02osC\x06system\x93.", "STACK_GLOBAL: a name is no text"),
    "old instance": (b"(ios\nsystem\n.", "INST: no set of pictures"),
    "old object": (b"(cos\nsystem\no.", "GLOBAL: it asks for 'os.system'"),
    "object of a known": (b"(c_codecs\nencode\no.", "OBJ: no set of pictures"),
    "new object": (b"cnumpy\nndarray\n)\x81.", "NEWOBJ: no set of pictures"),
    "new object, named": (b"cnumpy\nndarray\n))\x92.", "NEWOBJ_EX: no set"),
    "extension": (b"\x82\x01.", "EXT1: no set of pictures"),
    "extension 2": (b"\x83\x01\x00.", "EXT2"), "extension 4": (b"\x84\x01\0\0\0.", "EXT4"),
    "persistent": (b"Pmine\n.", "PERSID"), "persistent 1": (b"K\x01Q.", "BINPERSID"),
    "out of band": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "read only": (b"\x80\x05\x98.", "READONLY"),
    # known names used otherwise
    "another codec": (b"c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0zip\x86R.", "ENCODE with such"),
    "no bytes": (b"c_codecs\nencode\nX\x03\0\0\0\xe2\x82\xacX\x06\0\0\0latin1\x86R.", "'latin"),
    "encode of nothing": (b"c_codecs\nencode\nK\x01R.", "ENCODE with such arguments"),
    "bytes of a number": (b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", "BYTES with such"),
    "call of a number": (b"K\x01)R.", "REDUCE: int with such arguments"),
    "call of a list": (b"]q\0h\0R.", "REDUCE: list with such arguments"),
    "state of a list": (b"]}b.", "EMPTY_DICT"),
    "state of a tuple": (b"))b.", "BUILD: tuple with such"),
    "array of a class": (MADE.replace(b"numpy\nndarray", b"numpy\ndtype") + b".", "STRUCT with"),
    "object dtype": (b"cnumpy\ndtype\nU\x02O8K\0K\x01\x87R.", "DTYPE with such arguments"),
    "float dtype": (pickle.dumps(np.zeros(3), 2), "DTYPE with such arguments"),
    "void dtype": (b"cnumpy\ndtype\nU\x0cV99999999999K\0K\x01\x87R.", "DTYPE with such arguments"),
    "dtype with fields": (UINT8.replace(b"NNNJ", b"NNK\x01J") + b".", "UINT8 with such a state"),
    "huge shape": (shaped(b"\x8a\x08" + HUGE + b"\x85"), "shape does not fit its 1 bytes"),
    "negative shape": (shaped(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"), "shape does not fit"),
    "shape of bools": (shaped(b"\x88\x85"), "shape does not fit"),
    "no axes": (shaped(b")"), "shape does not fit"),
    "many axes": (shaped(b"(" + b"K\x01" * 99 + b"t"), "shape does not fit"),
    "objects in it": (shaped(b"K\x01\x85", b"]K\x01a"), "BUILD: Array with such a state"),
    "array set twice": (shaped(b"K\x01\x85", again=2), "BUILD: Array with such a state"),
    "array never set": (MADE + b".", "STOP: values, marks, empty arrays"),
    "None": (b"N.", "STOP: NoneType is nothing"),
    "a known": (b"c_codecs\nencode\n.", "ENCODE is noth"),
    "None in a tuple": (b"K\x01N\x86.", "STOP: a tuple with text, None or a name in it is nothing"),
    "text in a tuple": (pickle.dumps([("a", b"b")], 1), "APPEND: a tuple with text, None"),
    "a name in a tuple": (b"]c_codecs\nencode\n\x85a.", "APPEND: a tuple with text, None"),
    "text in a list": (pickle.dumps(["a"], 4), "APPEND: str is nothing"),
    "float": (pickle.dumps(1.5, 2), "BINFLOAT: no set"),
    "float, old": (b"F1.5\n.", "FLOAT: no set"),
    "set": (b"\x80\x04\x8f.", "EMPTY_SET"), "dict": (b"}.", "EMPTY_DICT: no set"),
    # size, depth, number
    "deep marks": (b"(" * 10**6, f"byte {DEPTH}, MARK: it is nested deeper"),
    "deep tuples": (b")" + b"\x85" * 10**6 + b".", "more instructions than so short a file"),
    "deep lists": (b"]" * 10**5 + b"a" * 10**5 + b".", "more instructions than so short a file"),
    "many lists": (b"]" * 10**6, "more instructions"),
    "billion laughs": (b"]q\0" + b"](" + b"h\0" * 10**6 + b"e.", "more instructions"),
    "one text, often": (TEXT + b"h\0h\1R" * 10, "REDUCE: more bytes are made of text"),
    "long bytes": (b"B\xff\xff\xff\xff....", "4294967295 bytes were to follow and 4 do"),
    "longer bytes": (b"\x96" + HUGE + b".", "were to follow and 1 do"),
    "negative length": (b"T\xff\xff\xff\xff.", "4294967295 bytes were to follow"),
    "long text": (b"X\xff\xff\xff\xff.", "were to follow"),
    "long frame": (b"\x80\x04\x95" + HUGE + b"K\x01.", "FRAME: the file ends here"),
    # each says that all the rest is in it: to copy that every time would take minutes
    "many frames": (FRAME * 10**5 + bytes(2**25), "instruction: there is none of number 0"),
    "long number": (b"\x8a\xff" + b"\x01" * 255 + b".", "LONG1: its argument has more than 64"),
    "longer number": (b"\x8b\xff\xff\0\0", "LONG4: no set"),
    "long decimal": (b"I" + b"9" * 10**5 + b"\n.", "INT: its argument is no number"),
    "no decimal": (b"I1_0\n.", "is no number"),
    "hex": (b"L0x10L\n.", "LONG: its argument is no number"),
    "far memo": (b"K\x01r\xff\xff\xff\xffj\xfe\xff\xff\xff.", "the memo has no number 4294967294"),
    "decimal memo": (b"K\x01p" + b"9" * 99 + b"\n.", "PUT: its argument is no number"),
    "negative memo": (b"K\x01p-1\ng-2\n.", "the memo has no number -2"),
    # damaged
    "empty": (b"", "byte 0, the next instruction: the file ends here"),
    "not a pickle": (b"\xff\xd8\xff\xe0", "there is none of number 255"),
    "html": (b"<html>", "there is none of number 60"), "zip": (b"PK\3\4", "PERSID"),
    "protocol": (b"\x80\x06K\x01.", "PROTO: protocol 6 is none of 0 to 5"),
    "protocol, late": (b"K\x01\x80\x02.", "PROTO: protocol 2 is none of 0 to 5, or comes too late"),
    "nothing": (b".", "STOP: there is nothing on the stack"),
    "rest": (b"K\x01.K", "left over"),
    "two values": (b"K\x01K\x01.", "left over"),
    "open mark": (b"(K\x01.", "left over"),
    "no mark": (b"K\x01t.", "TUPLE: there is no mark"),
    "no memo": (b"h\0.", "the memo has no number 0"),
    "below the mark": (b"](K\x01a.", "APPEND: there is nothing on the stack"),
    "memo of nothing": (b"q\0.", "BINPUT: there is nothing"), "pop": (b"K\0000.", "POP: no set"),
    "to a tuple": (b")K\x01a.", "APPEND: it adds to tuple"), "no quotes": (b"Sabc\n.", "no quoted"),
    "odd quotes": (b"S'abc\"\n.", "no quoted"),
    "bad escape": (b"S'\\q'\n.", "no quoted string"),
    "half escape": (b"S'\\x1'\n.", "no quoted"),
    "a quote in it": (b"S'\\'\n.", "no quoted"),
    "no text": (b"X\1\0\0\0\xff.", "BINUNICODE: 'utf-8' codec"),
    "bad V": (b"V\\u12\n.", "UNICODE: "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_file_is_refused_in_one_line(name):
    data, said = HOSTILE[name]
    with pytest.raises(ValueError) as error:
        loads(data, "dir/lfw.bin")
    line = str(error.value)
    assert said in line and line.startswith("dir/lfw.bin: byte ") and line.isprintable(), line
    assert len(line) < 300


@pytest.mark.parametrize("data, said", [
    (b"}NK\x01s.", "SETITEM: a key is neither text nor bytes"),
    (b"}]K\x01s.", "SETITEM: a key is neither"),
    (b"}q\0h\0K\x01s.", "SETITEM: a key is neither"),
    (b"})" + b"\x85" * 90_000 + b"K\x01s.", "SETITEM: a key is neither"),  # to hash it goes deep
    (b"(NK\x01d.", "DICT: a key is neither"),
    (b"(U\x01aK\x01K\x01d.", "DICT: it adds to dict, not to a dict, or half a pair"),
    (b"}(U\x01aNu.", "SETITEMS: NoneType is nothing"),
    (b"]U\x01aK\x01s.", "SETITEM: it adds to list, not to a dict"),
    (b"}K\x01a.", "APPEND: it adds to dict, not to a list"),
    (b"}}b.", "BUILD: dict with such a state"),
    (b"c__builtin__\ndict\n)R.", "asks for '__builtin__.dict'"),
])
def test_dicts_are_read_with_the_same_care(data, said):
    with pytest.raises(ValueError) as error:
        loads(data, "a", dicts=True)
    assert said in str(error.value)


class Touch:
    """A value that makes a file when pickle loads it."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_in_a_file_is_run(protocol, tmp_path):
    """Each file makes another when the real pickle loads it, so it would show."""
    path = tmp_path / "made"
    code = f"open({str(path)!r}, 'w').close()"
    calls = [(os.system, f"touch {path}"), (exec, code), (eval, code), (os.mkdir, str(path)),
             (getattr(pickle, "loads"), pickle.dumps(Touch(os.mkdir, str(path)), 2))]  # noqa: B009
    for function, *arguments in calls:
        for value in (Touch(function, *arguments), [[b"x", Touch(function, *arguments)], [True]]):
            data = pickle.dumps(value, protocol)
            pickle.loads(data)
            assert path.exists()
            (path.rmdir if path.is_dir() else path.unlink)()
            with pytest.raises(ValueError, match="GLOBAL: it asks for"):
                loads(data, "a.bin", dicts=True)
            assert not path.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_is_refused(protocol):
    data = pickle.dumps(([b"ab", np.arange(3, dtype=np.uint8), JPEG], [True, False]), protocol)
    loads(data, "a.bin")
    for length in range(len(data)):
        with pytest.raises(ValueError, match="a.bin: byte"):
            loads(data[:length], "a.bin")
    for data in (*PYTHON_2, *NUMPY_2):
        for length in range(len(data)):
            with pytest.raises(ValueError, match="a.bin: byte"):
                loads(data[:length], "a.bin")


# Fuzz: whatever comes in, a value of the few types or one line, in little memory

BASES = [pickle.dumps(value, protocol) for protocol in PROTOCOLS for value in (
    ([JPEG, b"x" * 40], [True]), ([np.frombuffer(JPEG, np.uint8)[:, None].copy()] * 2, (True,)),
    {b"data": np.zeros((2, 3), np.uint8, "F"), "labels": [1, 200, 70_000]})] + PYTHON_2 + NUMPY_2
PIECES = sorted({data for data, _ in HOSTILE.values() if len(data) < 200}) + [
    bytes([code]) for code in range(256)]
edit = st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["cut", "set", "add"]),
                 st.integers(1, 30), st.sampled_from(PIECES) | st.binary(max_size=9))
edits = st.lists(edit, min_size=1, max_size=4)


def edited(data, changes):
    for place, what, count, piece in changes:
        at = int(place * len(data))
        data = data[:at] + (b"" if what == "cut" else piece) + data[
            at + (0 if what == "add" else count if what == "cut" else len(piece)):]
    return data


def checked(data):
    """Read it; of a value see that it is made of what it may be made of."""
    try:
        left = [loads(data, "a.bin", dicts=True)]
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) < 400
        return
    seen = set()
    while left:
        value = left.pop()
        assert type(value) in (list, tuple, dict, bytes, str, bool, int, Array)
        if type(value) in (list, tuple, dict) and id(value) not in seen:
            seen.add(id(value))
            left += [*value, *value.values()] if type(value) is dict else value
        if type(value) is Array:
            value.values().sum()


@settings(derandomize=True, max_examples=600, deadline=None)
@given(st.sampled_from(BASES), edits)
def test_a_mutated_file_is_read_or_refused(data, changes):
    checked(edited(data, changes))


@settings(derandomize=True, max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES + [b"h\0", b"q\0", MADE, UINT8, b"K\x01", b"]", b"(", b"t"]),
                max_size=30))
def test_any_instructions_in_any_order_are_read_or_refused(pieces):
    checked(b"".join(pieces) + b".")


@pytest.mark.parametrize("unit", [
    b"]", b"}", b")", b"(t", b"]\x94", b"K\x01\x85\x94", b"M\x00\x01", b"J\x00\x01\x00\x00",
    b"\x8a\x04\x01\x02\x03\x04", b"C\x01a", b"C\x02ab", b"X\x01\0\0\0a", b"h\0h\1R", MADE, UINT8])
def test_memory_is_a_small_multiple_of_the_file(unit, monkeypatch):
    monkeypatch.setattr(pickle_machine, "STEPS", (1000, pickle_machine.STEPS[1]))
    data = TEXT[1:] + unit * (2**19 // len(unit))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            loads(data, "a.bin", dicts=True)
        assert tracemalloc.get_traced_memory()[1] < 16 * len(data)
    finally:
        tracemalloc.stop()


# Files


def test_a_file_is_read_or_named(tmp_path):
    path = tmp_path / os.fsdecode(b"l\xff\nw.bin")
    with pytest.raises(FileNotFoundError, match=r"l.+xff.+nw.bin: no such file"):
        unpickled(path, 100)
    path.write_bytes(b"K\x07.")
    assert unpickled(path, 100) == unpickled(str(path), 3) == 7
    with pytest.raises(ValueError, match="has 3 bytes, more than any file of its kind .2.; name"):
        unpickled(path, 2)
    with pytest.raises(ValueError, match="is no file; name the file itself"):
        unpickled(tmp_path, 100)
    path.write_bytes(b"K")
    with pytest.raises(ValueError, match="xff.*bin: byte 0, BININT1: the file ends here") as error:
        unpickled(path, 100)
    str(error.value).encode()  # can be printed
    assert shown(path).isprintable()
