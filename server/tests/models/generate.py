#!/usr/bin/env python3
"""Writes the small models that model-serving's tests load.  Needs only: onnx.

  python generate.py        (the same bytes each time, beside this file)
"""
from pathlib import Path

import onnx
from onnx import TensorProto as T
from onnx import helper as H

FOLDER = Path(__file__).parent


def tensor(name, kind, *dims):
    return H.make_tensor_value_info(name, kind, dims)


def save(name, nodes, inputs, outputs, constants=()):
    graph = H.make_graph(nodes, name, inputs, outputs, constants)
    model = H.make_model(graph, opset_imports=[H.make_opsetid("", 16)], ir_version=8, producer_name="convoy")
    onnx.checker.check_model(model)
    onnx.save(model, FOLDER / f"{name}.onnx")


def detector(name, image, first_nodes):
    """Four boxes in pixels of a 4x4 image from its red plane, and two classes' scores from its green plane."""
    nodes = first_nodes + [  # `planes` is f32 [batch,3,4,4], 0..255
        H.make_node("Gather", ["planes", "zero"], ["red"], axis=1),
        H.make_node("Gather", ["planes", "one"], ["green"], axis=1),
        H.make_node("Mul", ["red", "to_pixels"], ["boxes"]),
        H.make_node("Slice", ["green", "from", "to", "axis"], ["half"]),
        H.make_node("Mul", ["half", "to_score"], ["scores"]),
    ]
    constants = [
        H.make_tensor("zero", T.INT64, [], [0]),
        H.make_tensor("one", T.INT64, [], [1]),
        H.make_tensor("from", T.INT64, [1], [0]),
        H.make_tensor("to", T.INT64, [1], [2]),
        H.make_tensor("axis", T.INT64, [1], [2]),
        H.make_tensor("to_pixels", T.FLOAT, [], [1 / 64]),
        H.make_tensor("to_score", T.FLOAT, [], [1 / 256]),
        H.make_tensor("half_range", T.FLOAT, [], [128]),
    ]
    used = {i for node in nodes for i in node.input}
    outputs = [tensor("boxes", T.FLOAT, "batch", 4, 4), tensor("scores", T.FLOAT, "batch", 4, 2)]
    save(name, nodes, [image], outputs, [c for c in constants if c.name in used])


# The same network twice: once with pixels as they are, once with (pixel - 128) / 128 in planes.
detector("interleaved", tensor("images", T.UINT8, "batch", 4, 4, 3), [
    H.make_node("Transpose", ["images"], ["transposed"], perm=[0, 3, 1, 2]),
    H.make_node("Cast", ["transposed"], ["planes"], to=T.FLOAT),
])
detector("planar", tensor("images", T.FLOAT, "batch", 3, 4, 4), [
    H.make_node("Mul", ["images", "half_range"], ["scaled"]),
    H.make_node("Add", ["scaled", "half_range"], ["planes"]),
])

# No batch dimension.
save("unbatched", [H.make_node("Add", ["x", "x"], ["y"])], [tensor("x", T.FLOAT, 3)], [tensor("y", T.FLOAT, 3)])

# An input and an output of every type.
TYPES = {
    "bool": T.BOOL, "uint8": T.UINT8, "uint16": T.UINT16, "uint32": T.UINT32, "uint64": T.UINT64, "int8": T.INT8,
    "int16": T.INT16, "int32": T.INT32, "int64": T.INT64, "fp16": T.FLOAT16, "fp32": T.FLOAT, "fp64": T.DOUBLE,
    "bytes": T.STRING, "bf16": T.BFLOAT16,
}
save(
    "types",
    [H.make_node("Identity", [name], [f"{name}_out"]) for name in TYPES],
    [tensor(name, kind, "batch", 2) for name, kind in TYPES.items()],
    [tensor(f"{name}_out", kind, "batch", 2) for name, kind in TYPES.items()],
)

# Fails when it runs, for an index over 3. Once more with other values, as another version of it.
for name, table in {"lookup": [0, 10, 20, 30], "negated_lookup": [0, -10, -20, -30]}.items():
    save(
        name,
        [H.make_node("Gather", ["table", "index"], ["value"])],
        [tensor("index", T.INT64, "batch", 1)],
        [tensor("value", T.FLOAT, "batch", 1)],
        [H.make_tensor("table", T.FLOAT, [4], table)],
    )

# Rows of any length.
save("open", [H.make_node("Neg", ["x"], ["y"])], [tensor("x", T.FLOAT, "batch", "n")], [tensor("y", T.FLOAT, "batch", "n")])

# Rows of any even length: it fails on zeros of length 1, with which a session is tried when it may be broken.
save(
    "pairs",
    [H.make_node("Reshape", ["x", "shape"], ["y"])],
    [tensor("x", T.FLOAT, "batch", "n")],
    [tensor("y", T.FLOAT, "batch", "pairs", 2)],
    [H.make_tensor("shape", T.INT64, [3], [0, -1, 2])],
)

# Looks as if it could be batched, and cannot: the output has two rows for each of the input.
save(
    "unfolding",
    [H.make_node("Reshape", ["x", "shape"], ["y"])],
    [tensor("x", T.FLOAT, "batch", 2)],
    [tensor("y", T.FLOAT, "rows", 1)],
    [H.make_tensor("shape", T.INT64, [2], [-1, 1])],
)

# Works for as long as it is told: it counts to `n`, one by one.
save(
    "busy",
    [
        H.make_node("Squeeze", ["n"], ["trips"]),
        H.make_node(
            "Loop",
            ["trips", "yes", "zero"],
            ["counted"],
            body=H.make_graph(
                [H.make_node("Identity", ["go_on"], ["goes_on"]), H.make_node("Add", ["count", "one"], ["counted_on"])],
                "count",
                [tensor("trip", T.INT64), tensor("go_on", T.BOOL), tensor("count", T.INT64, 1)],
                [tensor("goes_on", T.BOOL), tensor("counted_on", T.INT64, 1)],
                [H.make_tensor("one", T.INT64, [1], [1])],
            ),
        ),
    ],
    [tensor("n", T.INT64, 1)],
    [tensor("counted", T.INT64, 1)],
    [H.make_tensor("yes", T.BOOL, [], [True]), H.make_tensor("zero", T.INT64, [1], [0])],
)
