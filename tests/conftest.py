"""What the tests of several studies share."""

import json
import os

import numpy as np
import pytest

from kdlab.data.faces import FaceSet

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before any test imports onnxruntime, which reports home


def _noise(world, identities, per_identity, crops=("arcface", "dlib")):
    """Random blocks instead of faces: one pattern a person, a little of it new in each picture."""
    rng = np.random.default_rng(len(identities))
    own = rng.integers(0, 200, (len(identities), 1, 3, 8, 8))
    mixed = own + rng.integers(0, 56, (len(identities), per_identity, 3, 8, 8))
    pixels = mixed.astype(np.uint8).reshape(-1, 3, 8, 8).repeat(6, 2).repeat(6, 3)
    labels = np.repeat(np.arange(len(identities)), per_identity)
    return FaceSet({crop: pixels for crop in crops}, labels, f"noise {list(identities)}",
                   {"image": np.tile(np.arange(per_identity), len(identities))})


@pytest.fixture(scope="session")
def noise():
    """Stands where `rendered` does."""
    return _noise


def _finished(module, config: dict, folder) -> tuple[list[dict], dict]:
    done, records = {}, []
    while left := [c for c in module.cells(config, done) if c["name"] not in done]:
        result = json.loads(json.dumps(module.run(left[0], folder)))
        done[left[0]["name"]] = result
        records.append({"cell": left[0], "result": result})
    return records, module.summarise(records, folder)


@pytest.fixture(scope="session")
def finished():
    """finished(study's module, config, folder): all cells run one by one, and the summary."""
    return _finished
