"""A frozen teacher from a safetensors file, with the contract its pictures must keep.

The file's metadata says which network of `kdlab.models` it fills and how its input is made (crop,
size, mean, divisor), so that nobody feeds dlib's network an ArcFace crop by mistake (its equal
error rate on ORL goes from 0.44 % to 4.5 %). Files are data from outside: no pickle, sizes checked
before anything is built, hashes compared with the SHA256SUMS that lies beside them. An ONNX file
is a teacher too (kdlab.onnx_teacher); what `kdlab teacher check` wrote beside a file of either kind
(kdlab.contract) goes before what the file says of its input.
"""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdlab.cache import file_digest, write_atomic
from kdlab.contract import INPUT, check_input, entries_fine, read_contract
from kdlab.models import MODELS
from kdlab.outputs import Output

TEACHERS = Path(__file__).resolve().parents[1] / "data" / "teachers"
FORMAT = "kdlab teacher 1"
MAX_FILE = 1 << 30  # bytes; iresnet200, the largest network in use, is 0.45 GiB in float32
MAX_HEADER = 1 << 20  # bytes; iresnet100's header is 0.1 MB
EXTRA = {"embedding_mean", "centres"}  # tensors of a file that are not the network's
STUDENT_SCALE = ([127.5] * 3, 127.5)  # what the student's own batches are normalised with


class Teacher(nn.Module):
    """A frozen network that never leaves eval mode. Made by `load_teacher`.

    contract: what the file says of itself, and "centred".   hash: SHA-256 of the file.
    embedding_size: D.   embedding_mean: (D,), subtracted before anything normalises.
    centres: (C, D) class rows, or None.   channels, tail: the network's (see kdlab.models).
    """

    def __init__(self, network: nn.Module, contract: dict, hash: str,
                 embedding_mean: Tensor, centres: Tensor | None = None):
        super().__init__()
        self.network, self.contract, self.hash = network, contract, hash
        self.embedding_size = contract["embedding_size"]
        self.channels = getattr(network, "channels", ())
        self.register_buffer("embedding_mean", embedding_mean)
        self.register_buffer("centres", centres)
        self.register_buffer("mean", _three(contract["mean"]))
        divide = contract["divide"]  # a number stays one: dividing by it rounds as it always did
        self.register_buffer("divide", _three(divide) if isinstance(divide, list) else None)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) uint8, RGB, in the contract's crop and size -> Output, centred, detached.

        Float pictures are taken as a student's batch, (x - 127.5) / 127.5, where the contract
        scales the same way. ValueError for any other size or dtype.
        """
        S, crop = self.contract["size"], self.contract["crop"]
        if images.ndim != 4 or images.shape[1:] != (3, S, S):
            raise ValueError(f"this teacher takes (B, 3, {S}, {S}) pictures of the {crop!r} crop, "
                             f"not {tuple(images.shape)}: faceset.pixels({crop!r}, {S})")
        if images.dtype == torch.uint8:
            divide = self.contract["divide"] if self.divide is None else self.divide
            images = (images.to(self.mean.dtype) - self.mean) / divide
        elif not images.is_floating_point() or STUDENT_SCALE != (
                self.contract["mean"], self.contract["divide"]):
            raise ValueError(f"this teacher takes uint8 pictures (0..255), not {images.dtype}; "
                             "for training, cache its embeddings: kdlab.data.embeddings.embed_set")
        if self.contract.get("channels") == "BGR":
            images = images.flip(1)
        with torch.no_grad():
            return self._centred(self.network(images))

    def tail(self, features: Tensor, stage: int) -> Output:
        """The frozen rest of the network after a stage (from 1); gradients reach `features`."""
        return self._centred(self.network.tail(features, stage))

    def _centred(self, output: Output) -> Output:
        return output._replace(embedding=output.embedding - self.embedding_mean)


def load_teacher(path_or_name: str | Path = "dlib_resnet29", raw: bool = False) -> Teacher:
    """Read a teacher: a name in data/teachers ("dlib_resnet29"), a path to .safetensors or .onnx.

    raw: leave the embedding as the network gives it, without subtracting the stored mean.
    Raises FileNotFoundError, or ValueError in one line that names the file: too large, truncated,
    hash not the listed one, not a teacher, tensors missing or unexpected, mean never computed, an
    ONNX file without a contract, a contract beside it that is another file's.
    """
    path = Path(path_or_name)
    if path.suffix == ".onnx":
        from kdlab.onnx_teacher import load_onnx  # it needs packages that the rest does without

        return load_onnx(path)
    named = path.suffix != ".safetensors"
    if named:
        path = TEACHERS / f"{path_or_name}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TEACHERS.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f"no teacher at {path}; the shipped ones are: {known}")
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"{path} is larger than {MAX_FILE >> 20} MiB; that is no face network")
    content = path.read_bytes()
    hash = hashlib.sha256(content).hexdigest()
    listed = _listed_hash(path)
    if listed != hash and (listed or named):
        raise ValueError(f"{path} is not the file that SHA256SUMS lists (it has {hash[:12]}..., "
                         f"listed is {(listed or 'nothing')[:12]}); restore or rebuild it")
    beside = read_contract(path, hash)
    try:
        return _build(content, hash, raw, beside)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_teacher(path: str | Path, network: nn.Module, contract: dict,
                 embedding_mean: Tensor | str | None = None, centres: Tensor | None = None) -> None:
    """Write a teacher that `load_teacher` reads, and its line in the SHA256SUMS beside it.

    contract: network, arguments (of MODELS[network]), crop, size, channels "RGB", mean (3 numbers),
    divide, embedding_size; whatever else is known (origin, licence) is kept.
    embedding_mean: (D,), or "unset" to be computed later, or None where none is needed.
    Matrices and kernels are stored in float16, vectors (scales, statistics, the mean) in float32.
    """
    path = Path(path)
    _check_contract(contract)
    tensors = dict(network.state_dict())
    state = "none" if embedding_mean is None else "set"
    if embedding_mean is not None:
        if isinstance(embedding_mean, str):
            state, embedding_mean = "unset", torch.zeros(contract["embedding_size"])
        tensors["embedding_mean"] = embedding_mean
    if centres is not None:
        tensors["centres"] = centres
    stored = {}
    for name, tensor in tensors.items():
        dtype = torch.float16 if tensor.ndim > 1 else torch.float32
        tensor = tensor.to("cpu", dtype) if tensor.is_floating_point() else tensor.cpu()
        if not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite in {dtype}; {path.name} was not written")
        stored[name] = tensor.contiguous()
    # One entry: safetensors writes several in no fixed order, and the hash would not be repeatable.
    about = {"format": FORMAT, "contract": contract, "embedding_mean": state}
    metadata = {"kdlab": json.dumps(about, sort_keys=True)}
    write_atomic(path, safetensors.torch.save(stored, metadata))
    sums = {p.name: file_digest(p) for p in sorted(path.parent.glob("*.safetensors"))}
    write_atomic(path.parent / "SHA256SUMS", "".join(f"{h}  {n}\n" for n, h in sums.items()))


def _listed_hash(path: Path) -> str | None:
    """The hash that SHA256SUMS beside the file gives for it, None where it gives none."""
    try:
        lines = (path.parent / "SHA256SUMS").read_text().splitlines()
    except OSError:
        return None
    pairs = [line.split(maxsplit=1) for line in lines]
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}.get(path.name)


def _build(content: bytes, hash: str, raw: bool, beside: dict | None) -> Teacher:
    """A teacher from the bytes of a file; ValueError in words for anything out of order.

    beside: the contract of a file of its own, whose input goes before the one in the bytes.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        if not 2 <= length <= MAX_HEADER:
            raise ValueError("no safetensors header")
        header = json.loads(content[8:8 + length])
        tensors = safetensors.torch.load(content)
    except (ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
        raise ValueError(f"truncated or not a safetensors file ({error}); copy it again") from error
    try:
        about = json.loads(header["__metadata__"]["kdlab"])
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}")
        contract, mean_state = about["contract"], about["embedding_mean"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"holds tensors but is no {FORMAT!r} file ({error!r}); make it with "
                         "kdlab.teachers.save_teacher") from error
    _check_contract(contract)
    contract |= {key: beside[key] for key in INPUT} if beside else {}
    if mean_state == "unset" and not raw:
        raise ValueError("its mean embedding was never computed; run "
                         "`python scripts/convert_dlib.py --mean`, or load it with raw=True")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite; restore the file")
    try:
        # Shapes only: nothing is allocated for a hostile argument.
        with torch.device("meta"), _Undrawn():
            wanted = MODELS[contract["network"]](**contract["arguments"]).state_dict()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{contract['network']} cannot be made from its arguments "
                         f"{contract['arguments']}: {error}") from error
    own = {name: t for name, t in tensors.items() if name not in EXTRA}
    missing, unexpected = sorted(wanted.keys() - own), sorted(own.keys() - wanted)
    if missing or unexpected:
        raise ValueError(f"does not fit {contract['network']}: missing {_names(missing)}; "
                         f"unexpected {_names(unexpected)}")
    wrong = sorted(n for n in own if own[n].shape != wanted[n].shape)
    D = contract["embedding_size"]
    mean = tensors.get("embedding_mean", torch.zeros(D)).float()
    centres = tensors.get("centres")
    wrong += ["embedding_mean"] * (mean.shape != (D,))
    wrong += ["centres"] * (centres is not None and (centres.ndim != 2 or centres.shape[1] != D))
    if wrong:
        raise ValueError(f"tensors of the wrong shape: {_names(wrong)}")
    network = MODELS[contract["network"]](**contract["arguments"])
    for key, found in (("embedding_size", network.embedding_size), ("size", network.input_size)):
        if contract[key] != found:
            raise ValueError(f"the contract's {key!r} is {contract[key]}, but "
                             f"{contract['network']} has {found}")
    network.load_state_dict(own)
    centred = not raw and "embedding_mean" in tensors
    return Teacher(network, contract | {"centred": centred}, hash,
                   mean if centred else torch.zeros(D),
                   None if centres is None else centres.float())


def _check_contract(contract: object) -> None:
    """ValueError that names the first entry which no network or no picture could keep."""
    c = contract if isinstance(contract, dict) else {}
    entries_fine({
        "network": isinstance(c.get("network"), str) and c["network"] in MODELS,
        "arguments": isinstance(c.get("arguments"), dict),
        "channels": c.get("channels") == "RGB",  # what save_teacher writes; BGR stands beside it
    }, c)
    check_input(c)


def _three(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)


class _Undrawn(TorchFunctionMode):
    """No first weights: drawing them without memory would load torch's compiler, for a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "nothing"
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
