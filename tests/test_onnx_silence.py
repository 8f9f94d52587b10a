"""onnxruntime reports to its maker unless told otherwise before it is imported."""

import subprocess
import sys

import pytest

HEARD = """
import os, sys
sys.modules["onnxruntime"] = None  # an import that comes too early fails
import kdlab, kdlab.clinic, kdlab.onnx_teacher
del sys.modules["onnxruntime"]
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def test_it_is_told_before_it_is_imported(monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    said = subprocess.run([sys.executable, "-c", HEARD], capture_output=True, text=True,
                          check=True)
    assert said.stdout.strip() == "1"
