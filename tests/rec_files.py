"""Small RecordIO face sets: a writer and a slow reader, transcribed from the format."""

import io
import struct

import numpy as np
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)
PEOPLE = [3, 2, 4]  # pictures of identity 0, 1, 2


def chunk_bytes(flag, payload):
    return MAGIC + struct.pack("<I", flag << 29 | len(payload)) + payload + bytes(-len(payload) % 4)


def record_bytes(payload):
    out, begun = b"", 0
    for i in range(0, len(payload) // 4 * 4, 4):
        if payload[i:i + 4] == MAGIC:
            out += chunk_bytes(1 if begun == 0 else 2, payload[begun:i])
            begun = i + 4
    return out + chunk_bytes(0 if begun == 0 else 3, payload[begun:])


def packed(key, label, content=b"", id2=0):
    if isinstance(label, (int, float)):
        return struct.pack("<IfQQ", 0, label, key, id2) + content
    return (struct.pack("<IfQQ", len(label), 0, key, id2)
            + b"".join(struct.pack("<f", one) for one in label) + content)


def slowly(data):
    """(byte, payload) of every record: one pass, one chunk at a time."""
    found, at, payload = [], 0, None
    while at < len(data):
        begun = at
        assert data[at:at + 4] == MAGIC
        word = struct.unpack("<I", data[at + 4:at + 8])[0]
        flag, length = word // 2**29, word % 2**29
        part = data[at + 8:at + 8 + length]
        at = at + 8 + length
        while at % 4 != 0:
            at = at + 1
        if flag == 0:
            found.append((begun, part))
        if flag == 1:
            first, payload = begun, part
        if flag in (2, 3):
            payload = payload + MAGIC + part
        if flag == 3:
            found.append((first, payload))
    return found


def write(folder, records, order=None, name="train"):
    """records: key -> payload.   order: of the keys in the file.   The .rec's path."""
    folder.mkdir(parents=True, exist_ok=True)
    data, lines = b"", []
    for key in order or records:
        lines.append(f"{key}\t{len(data)}\n")
        data += record_bytes(records[key])
    (folder / f"{name}.rec").write_bytes(data)
    (folder / f"{name}.idx").write_text("".join(lines))
    return folder / f"{name}.rec"


def pixels(seed, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def jpeg(side=32, mode="RGB", color=(200, 30, 40)):
    out = io.BytesIO()
    Image.new(mode, (side, side), color).save(out, "JPEG", quality=95)
    return out.getvalue()


def png(seed, side=32):
    out = io.BytesIO()
    Image.fromarray(pixels(seed, side)).save(out, "PNG", compress_level=0)
    return out.getvalue()


def face_records(people=PEOPLE, label=float, content=png):
    """insightface's form: pictures 1 ... N, picture k is content(k); ranges; the directory."""
    N, key, records, ranges = sum(people), 1, {}, []
    for identity, count in enumerate(people):
        ranges.append((key, key + count))
        for _ in range(count):
            records[key] = packed(key, label(identity), content(key))
            key += 1
    for first, last in ranges:
        records[key] = packed(key, [first, last])
        key += 1
    records[0] = packed(0, [N + 1, key], id2=1)
    return records


def expected(keys):
    return np.stack([pixels(key) for key in keys]).transpose(0, 3, 1, 2)
