"""What an OpenVINO network may hold: read by ourselves, and written anew for OpenVINO from what was understood.

A bundle's `model.xml` is data of unknown origin for a parser and some three hundred operations in native code. Only
the operations that pictures are classified with pass, only plain numbers inside `model.bin`, and nothing else: what
OpenVINO reads is our own text, so that no two readings of the same bytes can differ.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.parsers import expat

from pigeonholed.bundle import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BYTES = 32 << 20
MAX_ELEMENTS = 2_000_000
MAX_TENSOR = 1 << 30  # numbers in one tensor, for one picture
MAX_STEP = 65_536


def _words(text: str) -> frozenset[str]:
    """A set written down as it reads."""
    return frozenset(text.split())


OPERATIONS = _words(
    """
    Abs Add AvgPool BatchNormInference Broadcast Clamp Concat Const Convert ConvertLike Convolution
    ConvolutionBackpropData DepthToSpace Divide Elu Equal Erf Exp FakeQuantize Floor FloorMod Gather GatherND Gelu
    Greater GreaterEqual GroupConvolution GroupConvolutionBackpropData HSigmoid HSwish HardSigmoid Interpolate LRN Less
    LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr MVN MatMul MaxPool Maximum Minimum Mish Mod Multiply
    Negative NormalizeL2 NotEqual OneHot PReLU Pad Parameter Power Range ReLU ReduceL1 ReduceL2 ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum Reshape Result ReverseSequence Roll Round Select Selu ShapeOf Sigmoid Sign Slice
    SoftMax SoftPlus SoftSign SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tanh Tile
    Transpose Unsqueeze VariadicSplit
    """
)
"""None of them has a body, a state, a file, chance, or a result whose size depends on the picture's content."""

_DECIMAL = re.compile(r" *-?[0-9]{1,18} *")
_OPSET = re.compile(r"opset([1-9]|1[0-9])")

_BYTES = {"boolean": 1, "u8": 1, "i8": 1, "u16": 2, "i16": 2, "f16": 2, "bf16": 2, "u32": 4, "i32": 4, "f32": 4}
_BYTES |= {"u64": 8, "i64": 8, "f64": 8}

# What may stand in what; `rt_info` (notes of tools, and options of the runtime) is passed over with all that is in it.
_INSIDE = {
    "": {"net"},
    "net": {"layers", "edges"},
    "layers": {"layer"},
    "edges": {"edge"},
    "layer": {"data", "input", "output"},
    "input": {"port"},
    "output": {"port"},
    "port": {"dim"},
}
_NOTES = frozenset({"rt_info", "meta_data"})

# Lists of numbers that decide how much memory an operation takes.
_STEPS = frozenset({"strides", "dilations", "pads_begin", "pads_end", "kernel", "output_padding", "block_size"})


def checked(model: bytes, weights_bytes: int, where: Path) -> bytes:
    """The content of a `model.xml` written anew, once all of it is known to be harmless.

    Args:
        model: the whole file.
        weights_bytes: size of its `model.bin`.
        where: the bundle, for messages.

    Raises:
        BundleError: no such document; a document type or an entity; an element, an operation or a type of number
            that is not on our list; weights beyond the end of `model.bin`; a tensor or a step that is too large.
    """
    try:
        if len(model) > MAX_BYTES:
            raise _Refused(f"its description is larger than {MAX_BYTES} bytes")
        return _Reader(weights_bytes).read(model)
    except _Refused as fault:
        raise BundleError(f"The OpenVINO network at {where} is refused: {fault}.") from fault
    except (expat.ExpatError, KeyError, ValueError) as fault:
        raise BundleError(f"The OpenVINO network at {where} is refused: its description is damaged.") from fault


class _Refused(Exception):
    """The end of a sentence about a `model.xml`."""


class _Reader:
    """Checks each element as it comes, and builds the document that OpenVINO will see."""

    def __init__(self, weights_bytes: int) -> None:
        self._weights_bytes = weights_bytes
        self._way: list[str] = [""]
        self._notes = 0
        self._elements = 0
        self._operation = ""
        self._dims: list[int] = []
        self._text = ""
        self._made = ElementTree.TreeBuilder()

    def read(self, model: bytes) -> bytes:
        parser = expat.ParserCreate("UTF-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = _no_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.Parse(model, True)
        written: bytes = ElementTree.tostring(self._made.close(), "utf-8")
        return written

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise _Refused(f"its description has more than {MAX_ELEMENTS} elements")
        if self._notes or tag in _NOTES:
            self._notes += 1
            return
        if tag not in _INSIDE.get(self._way[-1], ()) or self._text.strip():
            raise _Refused(f"{tag[:60]!a} is not allowed in {self._way[-1] or 'it'}, or text before it")
        if tag == "layer":
            self._operation = _operation_of(attributes)
        elif tag == "data":
            self._check_data(attributes)
        elif tag == "port":
            self._dims = []
        self._text = ""
        self._way.append(tag)
        self._made.start(tag, attributes)

    def _characters(self, text: str) -> None:
        if not self._notes:
            self._text += text

    def _end(self, tag: str) -> None:
        if self._notes:
            self._notes -= 1
            return
        if tag == "dim":
            size = _number(self._text)
            self._dims.append(size)
            self._made.data(str(size))
        elif self._text.strip():
            raise _Refused(f"{tag[:60]!a} holds text")
        elif tag == "port":
            _check_shape(self._dims)
        self._text = ""
        self._way.pop()
        self._made.end(tag)

    def _check_data(self, attributes: Mapping[str, str]) -> None:
        """Refuses what an operation is told: types that are no numbers, large steps, weights that are not there."""
        for key, value in attributes.items():
            if key in _STEPS and any(abs(number) > MAX_STEP for number in _numbers(value)):
                raise _Refused(f"the {key} of {self._operation} are over {MAX_STEP}")
            if key in ("element_type", "destination_type") and value not in _BYTES:
                raise _Refused(f"the type {value[:60]!a} is not on the list of those allowed")
        if self._operation == "Const":
            shape = _numbers(attributes.get("shape", ""))
            offset, size = _number(attributes["offset"]), _number(attributes["size"])
            _check_shape(shape)
            if min(shape, default=0) < 0 or size != math.prod(shape) * _BYTES[attributes["element_type"]]:
                raise _Refused("a constant has another size than its shape says")
            if offset < 0 or offset + size > self._weights_bytes:
                raise _Refused("a constant lies beyond the end of model.bin")


def _operation_of(attributes: Mapping[str, str]) -> str:
    name, opset = attributes.get("type", ""), attributes.get("version", "")
    if name not in OPERATIONS or not _OPSET.fullmatch(opset):
        raise _Refused(f"the operation {f'{opset}.{name}'[:80]!a} is not on the list of those allowed")
    return name


def _numbers(text: str) -> list[int]:
    """`1, 2,3` as numbers; nothing at all as none."""
    return [_number(number) for number in text.split(",")] if text.strip() else []


def _number(text: str) -> int:
    """A plain decimal; Python would also take `1_000` and the digits of every script, and OpenVINO would not."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(text[:60])
    return int(text)


def _check_shape(shape: list[int]) -> None:
    """A dimension of -1 is the number of pictures, or not known."""
    if any(size < -1 for size in shape) or math.prod(abs(size) for size in shape) > MAX_TENSOR:
        raise _Refused(f"a tensor of shape {str(shape)[:60]} is larger than {MAX_TENSOR} numbers")


def _no_doctype(*_declaration: object) -> None:
    raise _Refused("its description declares a document type")
