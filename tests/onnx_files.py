"""Small ONNX face networks, written with onnx.helper: one ends in a linear layer, that is all."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def model(nodes, weights, inputs, outputs, **graph):
    """A model's bytes.   weights: name -> array.   inputs, outputs: [(name, shape)]."""
    def values(pairs):
        return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
                for name, shape in pairs]

    made = helper.make_graph(nodes, "g", values(inputs), values(outputs),
                             [numpy_helper.from_array(v, k) for k, v in weights.items()], **graph)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)],
                             ir_version=8).SerializeToString()


def embedder(S=8, D=6, batch="N", layout="NCHW", seed=0, more=()):
    """Average over 2 x 2, flatten, a linear layer; `more`: extra outputs (name, shape)."""
    random = np.random.default_rng(seed)
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] * (layout == "NHWC")
    nodes += [helper.make_node("AveragePool", ["t" if layout == "NHWC" else "x"], ["p"],
                               kernel_shape=[2, 2], strides=[2, 2]),
              helper.make_node("Flatten", ["p"], ["f"]),
              helper.make_node("MatMul", ["f", "w"], ["y"])]
    nodes += [helper.make_node("ReduceL2", ["y"], [name], axes=[1]) if shape[-1] == 1 else
              helper.make_node("Relu", ["y"], [name]) for name, shape in more]
    w = random.normal(size=(3 * S * S // 4, D)).astype(np.float32)
    shape = [batch, 3, S, S] if layout == "NCHW" else [batch, S, S, 3]
    return model(nodes, {"w": w}, [("x", shape)], [("y", [batch, D]), *more]), w


def by_hand(w, x):
    """The same of x (N, 3, S, S)."""
    N, _, S, _ = x.shape
    pooled = x.reshape(N, 3, S // 2, 2, S // 2, 2).mean((3, 5))
    return pooled.reshape(N, -1) @ w
