"""A frozen teacher from an ONNX file: any face embedder, run by onnxruntime.

Such a file says how its input is shaped and nothing of crop, scale or channel order; a wrong guess
costs accuracy in silence. So it is a teacher only with a contract beside it (kdlab.contract), which
`kdlab teacher check` finds out and writes. Gradients do not pass, and there are no feature maps.

Files are data from outside: sizes are checked before anything is read, weights kept in other files
(a path of the author's choosing) are refused, and so are loops.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdlab.cache import file_digest
from kdlab.contract import INPUT, MAX_EMBEDDING, MAX_SIZE, read_contract
from kdlab.outputs import Output
from kdlab.teachers import MAX_FILE, Teacher

KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
LOOPS = {"Loop", "Scan"}  # how long one runs the file decides; no embedder needs any
MAX_INPUT = 1 << 26  # pixels of a batch, 768 MiB in float32: our choice
SAID = 300  # characters of an error of onnxruntime's that are passed on; ours

# Released onnxruntime (1.31 here) reports sessions and a device number to its maker unless told
# otherwise before it is imported; its own switch, disable_telemetry_events(), comes too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class OnnxNetwork(nn.Module):
    """The network of a file: `forward` takes (B, 3, S, S) float, scaled, in its channel order.

    size: S, where the file leaves it open.   output: a name, where the file has several that could
    be embeddings.
    hash: SHA-256 of the file.   input_size: S.   embedding_size: D.   layout: "NCHW" or "NHWC".
    batch: the one number of pictures that the file takes, or None for any; other numbers are
    split and filled up here, so that nobody needs to know.

    Raises FileNotFoundError, or ValueError in one line that names the file: too large, truncated,
    no ONNX, weights elsewhere, loops, an input that is no picture or an output no embedding.
    """

    channels = ()  # of feature maps, which it does not show

    def __init__(self, path: str | Path, size: int | None = None, output: str | None = None):
        super().__init__()
        self._again = path, size, output
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such ONNX file")
        if path.stat().st_size > MAX_FILE:
            raise ValueError(f"{path}: larger than {MAX_FILE >> 20} MiB; that is no face network")
        content = path.read_bytes()
        self.hash = hashlib.sha256(content).hexdigest()
        try:
            _refuse(content)
            self._session = _session(content)
            self._read_input(size)
            self._read_output(output)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __reduce__(self):
        return OnnxNetwork, self._again  # a copy opens the file again

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) float -> Output with embedding (B, D) float32, on the pictures' device."""
        S = self.input_size
        if images.shape[1:] != (3, S, S):
            raise ValueError(f"this network takes (B, 3, {S}, {S}), not {tuple(images.shape)}")
        if images.device.type == "meta":
            return Output(images.new_empty(len(images), self.embedding_size, dtype=torch.float32))
        x = images.detach().float().cpu().numpy()
        found = np.empty((len(x), self.embedding_size), np.float32)
        step = self.batch or max(len(x), 1)
        for start in range(0, len(x), step):
            part = x[start:start + step]
            filled = np.zeros((step, *x.shape[1:]), np.float32)
            filled[:len(part)] = part
            found[start:start + step] = self._run(filled)[:len(part)]
        return Output(torch.from_numpy(found).to(images.device))

    def tail(self, features: Tensor, stage: int) -> Output:
        raise ValueError("an ONNX file shows its embedding alone, no feature maps; take a loss "
                         "that learns from embeddings")

    def _run(self, x: np.ndarray) -> np.ndarray:
        """(n, 3, S, S) float32 -> (n, D) float32."""
        x = x if self.layout == "NCHW" else x.transpose(0, 2, 3, 1)
        x = np.ascontiguousarray(x, self._kind)
        try:
            found = self._session.run([self._output], {self._input: x})[0]
        except Exception as error:  # onnxruntime has a dozen kinds of its own
            raise ValueError(f"it cannot be run on {len(x)} pictures of {self.input_size} pixels "
                             f"({_said(error)})") from error
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.ndim < 2 or (
                found.shape[0] != len(x) or found.size != len(x) * found.shape[1]):
            shape = getattr(found, "shape", type(found).__name__)
            raise ValueError(f"the output {self._output!r} is {shape} for {len(x)} pictures, not "
                             "an embedding of each")
        return found.reshape(len(x), -1).astype(np.float32)

    def _read_input(self, size: int | None) -> None:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ValueError(f"it has {len(inputs)} inputs ({_names(inputs)}); a face network has "
                             "one, the picture")
        one, shape = inputs[0], _shape(inputs[0])
        if one.type not in KINDS or len(shape) != 4:
            raise ValueError(f"its input {one.name!r} is {one.type} {one.shape}, not a batch of "
                             "pictures of float numbers")
        self.layout = "NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW"
        batch, colors, high, wide = (shape if self.layout == "NCHW" else
                                     [shape[0], shape[3], shape[1], shape[2]])
        fixed = {side for side in (high, wide) if side is not None}
        if colors not in (3, None) or len(fixed) > 1:
            raise ValueError(f"its input {one.name!r} is {one.shape}, not square pictures of three "
                             "colours")
        if not fixed and size is None:
            raise ValueError("it leaves the size of its pictures open; say it (--size 112 is usual "
                             "for ArcFace)")
        self.input_size = fixed.pop() if fixed else size
        if size not in (None, self.input_size):
            raise ValueError(f"its pictures are {self.input_size} pixels a side, not {size}")
        if not 1 <= self.input_size <= MAX_SIZE:
            raise ValueError(f"pictures of {self.input_size} pixels a side are no faces")
        if (batch or 1) * self.input_size**2 > MAX_INPUT:
            raise ValueError(f"it takes {batch} pictures of {self.input_size} pixels a side at "
                             "once, more than any machine here should hold")
        self.batch, self._input, self._kind = batch, one.name, KINDS[one.type]

    def _read_output(self, name: str | None) -> None:
        outputs = self._session.get_outputs()
        able = [one for one in outputs if one.type in KINDS and _is_embedding(_shape(one))]
        if name is not None:
            able = [one for one in outputs if one.name == name]
        if len(able) != 1:
            raise ValueError(f"{len(able)} of its outputs ({_names(outputs)}) could be the "
                             "embedding; say which (--output NAME)")
        self._output = able[0].name
        blank = np.zeros((self.batch or 2, 3, self.input_size, self.input_size))
        try:
            probe = self._run(blank)
        except ValueError:
            if self.batch:
                raise
            self.batch, probe = 1, self._run(blank[:1])  # it says any number and means one
        self.embedding_size = probe.shape[1]
        if not 2 <= self.embedding_size <= MAX_EMBEDDING:
            raise ValueError(f"its output {self._output!r} has {self.embedding_size} numbers a "
                             "picture; that is no embedding")


def load_onnx(path: str | Path) -> Teacher:
    """The teacher of an ONNX file and of the contract beside it.

    Raises what `OnnxNetwork` does, and ValueError where there is no contract, it cannot be read, or
    it speaks of another size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such ONNX file")
    contract = read_contract(path, file_digest(path))
    if contract is None:
        raise ValueError(f"{path} has no contract that says how its input is made; run `kdlab "
                         f"teacher check {path}`, which finds out and writes it")
    network = OnnxNetwork(path, contract["size"], contract.get("output"))
    if network.embedding_size != contract["embedding_size"]:
        raise ValueError(f"{path} gives {network.embedding_size} numbers a picture, its contract "
                         f"says {contract['embedding_size']}; run `kdlab teacher check {path}`")
    kept = {key: contract[key] for key in (*INPUT, "embedding_size")}  # what embeddings depend on
    kept |= {"network": "onnx", "output": contract.get("output"), "centred": False}
    return Teacher(network, kept, network.hash, torch.zeros(network.embedding_size))


def _refuse(content: bytes) -> None:
    """ValueError for bytes that are no ONNX model, or one that reaches out of its file."""
    try:
        import onnx
        import onnxruntime  # noqa: F401 - missed now, not after the parsing
    except ImportError as error:
        raise ValueError(f"ONNX files need two packages more ({error}): pip install onnx "
                         "onnxruntime") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's own kind, which moved between its versions
        raise ValueError(f"truncated or not an ONNX file ({_said(error)}); copy it "
                         "again") from error
    if not model.graph.node or not model.graph.output:
        raise ValueError("truncated or not an ONNX file (there is no network in it); copy it again")
    left = [model]  # every message in it, graphs within nodes too
    while left:
        message = left.pop()
        if isinstance(message, onnx.TensorProto):
            if message.external_data or message.data_location == onnx.TensorProto.EXTERNAL:
                raise ValueError(f"it keeps {message.name!r} in another file; save it whole, as "
                                 "one file (onnx.save with save_as_external_data=False)")
        elif isinstance(message, onnx.NodeProto) and message.op_type in LOOPS:
            raise ValueError(f"its node {message.name!r} is a {message.op_type}; a face network "
                             "has none, this file is refused")
        for field, value in message.ListFields():
            if field.message_type is not None:
                left += value if hasattr(value, "append") else [value]


def _session(content: bytes):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its words come back in the error
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    there = onnxruntime.get_available_providers()
    wanted = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in there]
    try:
        return onnxruntime.InferenceSession(content, options, providers=wanted)
    except Exception as error:  # as in _run
        raise ValueError(f"onnxruntime {onnxruntime.__version__} refuses it "
                         f"({_said(error)})") from error


def _shape(value) -> list[int | None]:
    """The dimensions of an input or output; None for one that is left open."""
    return [d if isinstance(d, int) and d > 0 else None for d in value.shape or []]


def _is_embedding(shape: list[int | None]) -> bool:
    """(B, D) or (B, D, 1, 1), D not 1: beside the embedding some files give its norm."""
    return len(shape) in (2, 4) and shape[1] != 1 and set(shape[2:]) <= {1, None}


def _names(values) -> str:
    return ", ".join(repr(one.name) for one in values[:8])


def _said(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:SAID]
