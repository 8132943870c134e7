"""Somebody else's detector as an ONNX file: scores against numpy, and files that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_by_hand import constant, node, onnx_file, value
from scipy.special import expit, softmax

from detectors.onnx import OnnxDetector, read_header
from detectors.regions import Region, crops
from facekit.core.errors import FacekitError
from facekit.types import Face

SIZE = 32
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]
PLAIN = {"size": SIZE, "mean": MEAN, "std": STD}
BOX = np.array([20, 20, 80, 80], np.float32)
POINTS = np.array([[35, 40], [65, 40], [50, 55], [40, 70], [60, 70]], np.float32)
WEIGHTS = np.random.default_rng(3).normal(0, 1, (3, 2)).astype(np.float32)

Batch = int | str


def linear(batch: Batch = "N", columns: int = 1, end: str | None = None) -> bytes:
    """Mean colours by a matrix, and perhaps a function of that."""
    nodes = [
        node("GlobalAveragePool", ["x"], "p"),
        node("Flatten", ["p"], "f"),
        node("MatMul", ["f", "w"], "m" if end else "y"),
    ]
    if end:
        nodes.append(node(end, ["m"], "y"))
    return onnx_file(
        nodes,
        [value("x", (batch, 3, SIZE, SIZE))],
        [value("y", (batch, columns))],
        [constant("w", WEIGHTS[:, :columns])],
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def written(content: bytes) -> Path:
        path = tmp_path / "other.onnx"
        path.write_bytes(content)
        return path

    return written


@pytest.fixture
def regions() -> list[Region]:
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (5, 1, 1, 3))
    pixels = np.clip(colours + random.integers(-30, 30, (5, 100, 100, 3)), 0, 255)
    return [Region(one.astype(np.uint8), Face(BOX, POINTS, 1.0)) for one in pixels]


def expected(regions: list[Region], columns: int = 1) -> np.ndarray:
    """What the linear network gives, in numpy."""
    images = crops(regions, "wide", SIZE).astype(np.float64) / 255
    return ((images - MEAN) / STD).mean((1, 2)) @ WEIGHTS[:, :columns]


@pytest.mark.parametrize("batch", [1, 2, 4, "N"])
def test_scores_are_the_networks_own_whatever_batch_it_takes(write, regions, batch) -> None:
    scorer = OnnxDetector.load(write(linear(batch)), **PLAIN)
    np.testing.assert_allclose(scorer.score(regions), expit(expected(regions)[:, 0]), atol=1e-5)
    assert scorer.name == "other" and scorer.facts["size"] == SIZE
    assert scorer.score([]).shape == (0,)


@pytest.mark.parametrize(
    ("end", "columns", "output", "what"),
    [
        (None, 1, "logit", lambda y: expit(y[:, 0])),
        (None, 1, "real-logit", lambda y: 1 - expit(y[:, 0])),
        ("Sigmoid", 1, "probability", lambda y: expit(y[:, 0])),
        ("Sigmoid", 1, "real-probability", lambda y: 1 - expit(y[:, 0])),
        (None, 2, "softmax:1", lambda y: softmax(y, axis=1)[:, 1]),
        (None, 2, "softmax:0", lambda y: softmax(y, axis=1)[:, 0]),
        (None, 2, "logit:1", lambda y: expit(y[:, 1])),
    ],
)
def test_what_the_number_says_can_be_stated(write, regions, end, columns, output, what) -> None:
    scorer = OnnxDetector.load(write(linear("N", columns, end)), output=output, **PLAIN)
    np.testing.assert_allclose(scorer.score(regions), what(expected(regions, columns)), atol=1e-5)


def test_colours_may_come_blue_first_and_last_in_shape(write, regions) -> None:
    turned = onnx_file(
        [
            node("Transpose", ["x"], "t", perm=(0, 3, 1, 2)),
            node("GlobalAveragePool", ["t"], "p"),
            node("Flatten", ["p"], "f"),
            node("MatMul", ["f", "w"], "y"),
        ],
        [value("x", ("N", SIZE, SIZE, 3))],
        [value("y", ("N", 1))],
        [constant("w", WEIGHTS[::-1, :1])],
    )
    scorer = OnnxDetector.load(
        write(turned), size=SIZE, mean=MEAN[::-1], std=STD[::-1], template="wide", bgr=True
    )
    np.testing.assert_allclose(scorer.score(regions), expit(expected(regions)[:, 0]), atol=1e-5)


def test_a_network_that_was_made_for_one_picture_is_given_one(write, regions) -> None:
    """It reshapes to one row, which OpenCV would do to a batch as well."""
    one = onnx_file(
        [
            node("GlobalAveragePool", ["x"], "p"),
            node("Reshape", ["p", "shape"], "f"),
            node("MatMul", ["f", "w"], "y"),
        ],
        [value("x", ("N", 3, SIZE, SIZE))],
        [value("y", ("N", 1))],
        [constant("w", WEIGHTS[:, :1]), constant("shape", [1, 3], kind=7)],
    )
    scores = OnnxDetector.load(write(one), **PLAIN).score(regions)
    np.testing.assert_allclose(scores, expit(expected(regions)[:, 0]), atol=1e-5)


def test_weights_that_are_listed_as_inputs_are_none(write, regions) -> None:
    old = onnx_file(
        [
            node("GlobalAveragePool", ["x"], "p"),
            node("Flatten", ["p"], "f"),
            node("MatMul", ["f", "w"], "y"),
        ],
        [value("x", (1, 3, SIZE, SIZE)), value("w", (3, 1))],
        [value("y", (1, 1))],
        [constant("w", WEIGHTS[:, :1])],
    )
    assert len(OnnxDetector.load(write(old), **PLAIN).score(regions)) == len(regions)


def two_outputs() -> bytes:
    nodes = [
        node("GlobalAveragePool", ["x"], "p"),
        node("Flatten", ["p"], "features"),
        node("MatMul", ["features", "w"], "score"),
    ]
    outputs = [value("score", ("N", 1)), value("features", ("N", 3))]
    inputs = [value("x", ("N", 3, SIZE, SIZE))]
    return onnx_file(nodes, inputs, outputs, [constant("w", WEIGHTS[:, :1])])


def test_of_two_outputs_one_must_be_named(write, regions) -> None:
    path = write(two_outputs())
    with pytest.raises(FacekitError, match="has 2 outputs, 'score', 'features'; say which"):
        OnnxDetector.load(path, **PLAIN)
    with pytest.raises(FacekitError, match="no output 'y'; there is 'score', 'features'"):
        OnnxDetector.load(path, head="y", **PLAIN)
    scores = OnnxDetector.load(path, head="score", **PLAIN).score(regions)
    np.testing.assert_allclose(scores, expit(expected(regions)[:, 0]), atol=1e-5)


def one_layer(kind: str, shape: tuple[Batch, ...] = (1, 3, SIZE, SIZE), dtype: int = 1) -> bytes:
    nodes = [
        node("GlobalAveragePool", ["x"], "p"),
        node(kind, ["p"], "q"),
        node("Flatten", ["q"], "f"),
        node("MatMul", ["f", "w"], "y"),
    ]
    inputs, outputs = [value("x", shape, dtype)], [value("y", (1, 1))]
    return onnx_file(nodes, inputs, outputs, [constant("w", WEIGHTS[:, :1])])


def two_inputs() -> bytes:
    add = node("Add", ["x", "z"], "y")
    sides = (1, 3, SIZE, SIZE)
    return onnx_file([add], [value("x", sides), value("z", sides)], [value("y", sides)])


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (b"", {}, "empty file"),
        (b"these are words, and no network", {}, "damaged, or no ONNX file"),
        (linear()[:90], {}, "damaged, or no ONNX file"),
        (linear()[:-60], {}, "damaged, or no ONNX file"),
        (linear(), {"size": 64}, r"takes pictures \(any, 3, 32, 32\), not \(any, 3, 64, 64\)"),
        (one_layer("Relu", (1, 1, SIZE, SIZE)), {}, r"takes pictures \(1, 1, 32, 32\), not"),
        (one_layer("Relu", (1, 3 * SIZE * SIZE)), {}, r"takes pictures \(1, 3072\), not"),
        (one_layer("Relu", dtype=2), {}, "'x' is not of 32-bit floats"),
        (two_inputs(), {}, "has 2 inputs, 'x', 'z'"),
        (one_layer("Log"), {}, "scores that are not numbers, for 1 of 1"),
        (one_layer("NoSuchLayer"), {}, "OpenCV .* cannot run this network"),
        (linear(), {"output": "probability"}, "which is no probability"),
        (linear(columns=2), {}, "gives 2 numbers a face; say which"),
        (linear(columns=2), {"output": "logit:2"}, r"gives 2 number\(s\) a face, so there is no 2"),
        (linear(), {"output": "softmax"}, "gives 1 numbers a face; say which"),
        (linear(), {"output": "logits"}, "unknown output 'logits'; did you mean 'logit'"),
        (linear(), {"output": "logit:one"}, "after the colon comes a place"),
        (linear(), {"std": [0.0]}, "must be above 0"),
        (linear(), {"mean": [0.5, 0.5]}, "give three numbers, or one"),
        (linear(), {"template": "broad"}, "unknown template 'broad'"),
    ],
)
def test_files_and_statements_that_cannot_be_used(write, content, options, says) -> None:
    if options.get("output") == "probability":
        options = {**options, "std": [0.001]}
    with pytest.raises(FacekitError, match=says) as error:
        OnnxDetector.load(write(content), **{**PLAIN, **options})
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match=r"none\.onnx: no such file"):
        OnnxDetector.load(tmp_path / "none.onnx", **PLAIN)


def test_scores_that_stop_being_numbers_are_an_error_and_no_half(write, regions) -> None:
    scorer = OnnxDetector.load(write(one_layer("Sqrt")), **{**PLAIN, "mean": [0.3], "std": [1.0]})
    dark = Region(np.zeros((100, 100, 3), np.uint8), Face(BOX, POINTS, 1.0))
    bright = Region(np.full((100, 100, 3), 200, np.uint8), Face(BOX, POINTS, 1.0))
    assert np.isfinite(scorer.score([bright])).all()
    with pytest.raises(FacekitError, match="not numbers, for 1 of 2 faces"):
        scorer.score([bright, dark])


@settings(deadline=None)
@given(st.data())
def test_a_damaged_header_is_an_error_in_one_line(tmp_path_factory, data) -> None:
    """Whatever is changed or cut off: it is read, or an error of ours."""
    content = bytearray(linear())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        header = read_header(path)
    except FacekitError as error:
        assert str(error) == f"{path}: damaged, or no ONNX file"
    else:
        assert header.outputs
