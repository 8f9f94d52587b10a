"""The stack machine that reads a pickle and runs nothing.

A pickle is a program for a stack machine. Some of its instructions import, call and alter what the
file names, which is why `pickle.load` runs whatever a stranger wrote. The machine here cannot: a
name is one of the few constants of `pickled.Known` or the file is refused, and a "call" is one of
the five exact shapes of `pickled.called`. Text, None and those constants may stand in the arguments
of such a call, never in a result.

What a file can make this allocate is a small multiple of its length: no length is believed before
the bytes are seen to be there, a memo is a dict that keeps references, the instructions are counted
(STEPS), and nothing here descends into a value, however deep the file nests it. The names of the
instructions and how each stores its argument are the table of the standard library's pickletools.
"""

import pickletools

from kdlab.data.pickled import (
    NAMES,
    VALUES,
    Arguments,
    Array,
    Known,
    called,
    decimal,
    filled,
    kind,
    unsigned,
)

NEWEST = 5  # protocol
DEPTH = 32  # open marks; real files have six
STEPS = 100_000, 16  # instructions at most: so many, and one for every 16 bytes. A picture of 1000
#   bytes takes 25 at most, an instruction makes an object of about 100 bytes: ours, both

_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_WIDTHS = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
           pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}


class Machine:
    """`next`: the byte to read; `at`, `doing`: where the instruction stands, and its name.

    marks: heights of the stack.   plain: the types that a result is made of.
    """

    def __init__(self, data: bytes, dicts: bool):
        self.data, self.next, self.at, self.doing = data, 0, 0, ""
        self.stack, self.marks, self.memo = [], [], {}
        self.plain = {list, tuple, bytes, bool, int, Array} | ({dict, str} if dicts else set())
        self.acts = _ACTS | (_DICTS if dicts else {})
        self.encoded, self.empty = 0, 0  # letters that became bytes, arrays still without values

    def run(self) -> object:
        for _ in range(STEPS[0] + len(self.data) // STEPS[1]):
            self.at, self.doing = self.next, "the next instruction"
            code = self.take(1)[0]
            if code not in _OPCODES:
                raise ValueError(f"there is none of number {code}")
            opcode = _OPCODES[code]
            self.doing = opcode.name
            if opcode.name == "STOP":
                return self.result()
            if opcode.name in VALUES:
                self.stack.append(VALUES[opcode.name](self.argument(opcode.arg)))
            elif opcode.name in self.acts:
                self.acts[opcode.name](self, self.argument(opcode.arg))
            else:
                raise ValueError("no set of pictures needs this instruction")
        raise ValueError("these are more instructions than so short a file of pictures needs")

    def result(self) -> object:
        value, = self.allowed(self.pop(1))
        if self.stack or self.marks or self.empty or self.next < len(self.data):
            raise ValueError("values, marks, empty arrays or bytes are left over")
        return value

    # the file

    def need(self, count: int) -> None:
        left = len(self.data) - self.next
        if count > left:
            raise ValueError(f"the file ends here, {count} bytes were to follow and {left} do")

    def take(self, count: int) -> bytes:
        self.need(count)
        self.next += count
        return self.data[self.next - count:self.next]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.next)
        if end < 0:
            raise ValueError("the file ends here, in the middle of a line")
        return self.take(end + 1 - self.next)[:-1]

    def argument(self, descriptor: pickletools.ArgumentDescriptor | None) -> bytes:
        """The bytes of an argument, without those that say how many they are."""
        if descriptor is None:
            return b""
        if descriptor.n in _WIDTHS:
            return self.take(unsigned(self.take(_WIDTHS[descriptor.n])))
        return self.take(descriptor.n) if descriptor.n >= 0 else self.line()

    # the stack

    def pop(self, count: int) -> list:
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("there is nothing on the stack for it")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def marked(self) -> list:
        """All above the last mark, which goes too."""
        if not self.marks:
            raise ValueError("there is no mark")
        items = self.pop(len(self.stack) - self.marks[-1])
        self.marks.pop()
        return items

    def mark(self, raw: bytes) -> None:
        if len(self.marks) == DEPTH:
            raise ValueError(f"it is nested deeper than {DEPTH} marks")
        self.marks.append(len(self.stack))

    def put(self, index: int) -> None:
        self.memo[index], = kept = self.pop(1)
        self.stack += kept

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"the memo has no number {index}")
        self.stack.append(self.memo[index])

    # containers

    def allowed(self, items: list) -> list:
        for item in items:
            if type(item) not in self.plain:
                raise ValueError(f"{kind(item)} is nothing that a set of pictures is made of")
        return items

    def group(self, items: list) -> None:
        plain = all(type(item) in self.plain for item in items)
        self.stack.append(tuple(items) if plain else Arguments(items))

    def extend(self, items: list) -> None:
        into, = self.pop(1)
        if type(into) is not list:
            raise ValueError(f"it adds to {kind(into)}, not to a list")
        into.extend(self.allowed(items))
        self.stack.append(into)

    def update(self, items: list) -> None:
        into, = self.pop(1)
        keys, values = items[::2], self.allowed(items[1::2])
        if type(into) is not dict or len(keys) != len(values):
            raise ValueError(f"it adds to {kind(into)}, not to a dict, or half a pair")
        if not all(type(key) in (str, bytes) for key in keys):  # to hash others may go deep
            raise ValueError("a key is neither text nor bytes")
        into.update(zip(keys, values, strict=True))
        self.stack.append(into)

    def mapping(self, raw: bytes) -> None:
        items = self.marked()
        self.stack.append({})
        self.update(items)

    # names and calls

    def name(self, items: list) -> None:
        if not all(type(item) is str for item in items):
            raise ValueError("a name is no text")
        name = ".".join(items)
        if name not in NAMES:
            raise ValueError(f"it asks for {ascii(name[:80])}")
        self.stack.append(NAMES[name])

    def call(self, raw: bytes) -> None:
        function, arguments = self.pop(2)
        made = called(function, arguments)
        if function is Known.ENCODE:  # one text, recalled again and again, would never end
            self.encoded += len(made)
            if self.encoded > len(self.data):
                raise ValueError("more bytes are made of text than the file has")
        self.empty += type(made) is Array and made.data is None
        self.stack.append(made)

    def build(self, raw: bytes) -> None:
        target, state = self.pop(2)
        filled(target, state)
        self.empty -= type(target) is Array
        self.stack.append(target)

    # the two that a file is framed by

    def protocol(self, raw: bytes) -> None:
        if self.at or raw[0] > NEWEST:
            raise ValueError(f"protocol {raw[0]} is none of 0 to {NEWEST}, or comes too late")

    def frame(self, raw: bytes) -> None:
        self.need(unsigned(raw))


_ACTS = {  # the instructions of which more is to be done than to push a value
    "PROTO": Machine.protocol, "FRAME": Machine.frame, "MARK": Machine.mark,
    "PUT": lambda m, raw: m.put(decimal(raw)), "GET": lambda m, raw: m.get(decimal(raw)),
    "BINPUT": lambda m, raw: m.put(raw[0]), "BINGET": lambda m, raw: m.get(raw[0]),
    "LONG_BINPUT": lambda m, raw: m.put(unsigned(raw)),
    "LONG_BINGET": lambda m, raw: m.get(unsigned(raw)),
    "MEMOIZE": lambda m, raw: m.put(len(m.memo)),
    "LIST": lambda m, raw: m.stack.append(m.allowed(m.marked())),
    "APPEND": lambda m, raw: m.extend(m.pop(1)), "APPENDS": lambda m, raw: m.extend(m.marked()),
    "TUPLE": lambda m, raw: m.group(m.marked()), "TUPLE1": lambda m, raw: m.group(m.pop(1)),
    "TUPLE2": lambda m, raw: m.group(m.pop(2)), "TUPLE3": lambda m, raw: m.group(m.pop(3)),
    "GLOBAL": lambda m, raw: m.name([raw.decode("latin-1"), m.line().decode("latin-1")]),
    "STACK_GLOBAL": lambda m, raw: m.name(m.pop(2)),
    "REDUCE": Machine.call, "BUILD": Machine.build,
}
_DICTS = {
    "EMPTY_DICT": lambda m, raw: m.stack.append({}), "DICT": Machine.mapping,
    "SETITEM": lambda m, raw: m.update(m.pop(2)), "SETITEMS": lambda m, raw: m.update(m.marked()),
}
