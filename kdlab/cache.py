"""Where computed data live outside git, and how a file appears there whole or not at all."""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


def cache_dir(*parts: str) -> Path:
    """The folder for computed data: $KDLAB_CACHE, or ~/.cache/kdlab; made if missing.

    Raises OSError that names the folder and the mend when it cannot be written or read.
    """
    base = Path(os.environ.get("KDLAB_CACHE") or Path.home() / ".cache" / "kdlab")
    folder = base.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        os.listdir(folder)
    except OSError as error:
        raise OSError(
            f"the cache folder {folder} cannot be used ({error.strerror or error}); "
            "make it readable and writable, or point KDLAB_CACHE at another folder"
        ) from error
    return folder


def digest(value: object) -> str:
    """A short stable key of anything JSON can hold: 16 hex digits of SHA-256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, whole, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write, fsync, rename: a reader sees the old file or the new one, never half of one."""
    with atomic(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to write to; it becomes `path`, synced, once it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename != str(path):
            raise type(error)(error.errno, f"{path} cannot be written ({error.strerror}); what was "
                              "there before is untouched") from error
        raise


def locked(path: str | Path) -> FileLock:
    """A lock beside `path` that dies with its holder; use as `with locked(path):`."""
    path = Path(path)
    return FileLock(path.with_name(f".{path.name}.lock"))
