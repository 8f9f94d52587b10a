"""How pictures become a network's input: checked, and kept in a file beside the network's.

A contract says crop ("arcface" or "dlib"), size (pixels a side), channels ("RGB" or "BGR", the
order the network takes), mean (of R, G and B, always in this order), divide (one number, or one
each for R, G and B) and embedding_size. A picture x, uint8 RGB, becomes (x - mean) / divide, then
its channels are brought into order. Beside FILE it lies in FILE.contract.json, with the SHA-256 of
FILE, and there it goes before what FILE says of itself.
"""

import json
import math
from pathlib import Path

from kdlab.align import SIZES
from kdlab.cache import write_atomic

FORMAT = "kdlab contract 1"
INPUT = ("crop", "size", "channels", "mean", "divide")  # what makes an input of a picture
MAX_FILE = 1 << 20  # bytes; such a file has a few hundred
MAX_SIZE, MAX_EMBEDDING = 1024, 65536  # pixels, dimensions: far above any face network


def check_input(contract: object) -> None:
    """ValueError that names the first entry which no picture could keep."""
    c = contract if isinstance(contract, dict) else {}

    def whole(key: str, most: int) -> bool:
        return type(c.get(key)) is int and 1 <= c[key] <= most

    def number(value: object, above: float = -math.inf) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and value > above

    def three(value: object, above: float = -math.inf) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(number(v, above) for v in value)

    divide = c.get("divide")
    entries_fine({
        "crop": isinstance(c.get("crop"), str) and c["crop"] in SIZES,
        "size": whole("size", MAX_SIZE),
        "channels": c.get("channels") in ("RGB", "BGR"),
        "mean": three(c.get("mean")),
        "divide": number(divide, 0) or three(divide, 0),
        "embedding_size": whole("embedding_size", MAX_EMBEDDING),
    }, c)


def entries_fine(checks: dict[str, bool], contract: dict) -> None:
    for key, fine in checks.items():
        if not fine:
            raise ValueError(f"the contract's {key!r} is {contract.get(key)!r}, which cannot be")


def contract_path(file: str | Path) -> Path:
    file = Path(file)
    return file.with_name(f"{file.name}.contract.json")


def read_contract(file: str | Path, hash: str) -> dict | None:
    """The contract beside a file, None where there is none.   hash: SHA-256 of the file.

    ValueError in one line: no such JSON, an entry that cannot be, the contract of another file.
    """
    path = contract_path(file)
    mend = f"remove it and run `kdlab teacher check {file}`, which writes one"
    if not path.is_file():
        return None
    with open(path, "rb") as opened:
        content = opened.read(MAX_FILE + 1)
    try:
        if len(content) > MAX_FILE:
            raise ValueError(f"it is larger than {MAX_FILE >> 20} MiB")
        contract = json.loads(content)
        if not isinstance(contract, dict) or contract.get("format") != FORMAT:
            raise ValueError(f"it is no {FORMAT!r}")
        check_input(contract)
        if not isinstance(contract.get("output"), str | None):
            raise ValueError("its 'output' is no name")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {mend}") from error
    if contract.get("sha256") != hash:
        raise ValueError(f"{path} is the contract of another file ({contract.get('sha256')!s:.12}"
                         f"..., this one has {hash[:12]}...); {mend}")
    return contract


def write_contract(file: str | Path, hash: str, contract: dict) -> Path:
    """Write what `read_contract` reads; entries beyond the contract's own are kept.

    ValueError for an entry that cannot be, OSError where the folder cannot be written.
    """
    check_input(contract)
    path = contract_path(file)
    whole = {"format": FORMAT, "sha256": hash, **contract}
    write_atomic(path, json.dumps(whole, indent=2, sort_keys=True) + "\n")
    return path
