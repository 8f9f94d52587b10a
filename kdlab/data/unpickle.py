"""Pickles read without pickle: numbers, bytes, lists, tuples, uint8 arrays, and nothing else.

What a pickle is, why `pickle.load` runs whatever a stranger wrote, and how this does not, stands in
kdlab.data.pickle_machine.
"""

from pathlib import Path

from kdlab.data.pickle_machine import Machine
from kdlab.data.shown import shown


def unpickled(path: str | Path, most: int, *, dicts: bool = False) -> object:
    """What a pickle file holds, see `loads`.   most: bytes; a longer file is not read.

    Raises FileNotFoundError or another OSError that names the file, ValueError of one line.
    """
    path, name = Path(path), shown(path)
    if not path.exists():
        raise FileNotFoundError(f"{name}: no such file")
    if not path.is_file():
        raise ValueError(f"{name} is no file; name the file itself")
    if path.stat().st_size > most:
        raise ValueError(f"{name} has {path.stat().st_size} bytes, more than any file of its kind "
                         f"({most}); name another")
    with open(path, "rb") as file:
        return loads(file.read(most), name, dicts=dicts)


def loads(data: bytes, name: str, *, dicts: bool = False) -> object:
    """The one value of a pickle, made of list, tuple, bytes, bool, int and `pickled.Array`.

    data: the whole file.   name: of the file, for errors.   dicts: the value may also be made of
    text and of dict, with keys of text or bytes.   What Python 2 wrote as str becomes bytes.
    ValueError of one line with the name, the byte and the instruction for anything else. A list
    may hold itself and tuples be nested deep: whoever walks through the value has to mind that.
    """
    machine = Machine(data, dicts)
    try:
        return machine.run()
    except ValueError as error:
        raise ValueError(f"{name}: byte {machine.at}, {machine.doing}: {error}; the file is not "
                         "read, and nothing in it was run: get it anew from its source") from None


