"""OpenVINO on the CPU: the lightest way to serve; TensorFlow and Keras are never imported by it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.bundle import BundleError
from pigeonholed.classifying import ir
from pigeonholed.classifying.batched import Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.bundle import Input


def import_openvino() -> Any:
    """The `openvino` package, kept from reporting to its maker.

    Every import of it would otherwise send an event over the network, from threads of its own, and write files into
    the home folder, which a hardened service must not have. Where `openvino_telemetry` cannot be imported it takes a
    stub of its own instead, as if that optional package were not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how Python says "not there"
    import openvino

    return openvino


def convert(function: Any) -> Any:
    """An OpenVINO model of a concrete TensorFlow function.

    Raises:
        RuntimeError: OpenVINO knows no equivalent of an operation in it.
    """
    ov = import_openvino()
    with _converter_on_python_3_13():
        try:
            return ov.convert_model(function)
        except Exception as fault:  # of several kinds without a base of their own, OpConversionFailure among them
            raise RuntimeError(str(fault)) from fault


@contextlib.contextmanager
def _converter_on_python_3_13() -> Iterator[None]:
    """Keep OpenVINO from looking up TensorFlow's version by `exec("del tensorflow")`.

    Since Python 3.13 an `exec` in a function sees names of an earlier one no more (PEP 667), and the converter of
    OpenVINO 2026.4.1 fails there with a NameError.
    """
    utilities = importlib.import_module("openvino.frontend.tensorflow.utils")
    before = utilities.get_environment_setup
    found = {"tensorflow": importlib.metadata.version("tensorflow")}
    utilities.get_environment_setup = lambda _framework: found  # type: ignore[attr-defined]
    try:
        yield
    finally:
        utilities.get_environment_setup = before  # type: ignore[attr-defined]


def load(model: bytes, weights: bytes, wanted: Input, where: Path, *, precision: str = "auto") -> Network:
    """Compiles a network for the CPU.

    It is compiled in a thread that ends with it. OpenVINO gives the thread that makes its core a signal stack, and
    unmaps that in whichever thread drops the last network of the core: the next signal to the first thread would
    then end the process with SIGSEGV (seen with 2026.4.1, when another version of a model had replaced the first).

    Args:
        model: content of `model.xml`.
        weights: content of `model.bin`.
        wanted: the input that the network must have.
        where: the bundle, for messages.
        precision: `auto` is f32. A CPU with AMX or AVX512_BF16 would compute in bf16 unasked, which shifts
            probabilities away from those that calibration and thresholds were fitted to.

    Raises:
        BundleError: not in our allow-list, refused by OpenVINO, or its input is not uint8 [N, height, width, 3].
    """
    model = ir.checked(model, len(weights), where)
    with ThreadPoolExecutor(1, "openvino-load") as thread:
        return thread.submit(_load, model, weights, wanted, where, precision).result()


def _load(model: bytes, weights: bytes, wanted: Input, where: Path, precision: str) -> Network:
    ov = import_openvino()
    try:
        network = ov.Core().read_model(model, weights)
        shape = network.inputs[0].partial_shape if len(network.inputs) == 1 else None
        pixels = [-1, wanted.height, wanted.width, 3]
        if (
            shape is None
            or not shape.compatible(ov.PartialShape(pixels))
            or network.inputs[0].element_type != ov.Type.u8
        ):
            raise BundleError(f"The OpenVINO network at {where} does not take the pixels that its manifest says.")
        # One network for all batch sizes: measured as fast as one compiled for each, in a fraction of the memory.
        network.reshape(pixels)
        compiled = ov.Core().compile_model(network, "CPU", _options(ov, precision))
    except RuntimeError as fault:
        raise BundleError(f"OpenVINO cannot load the network at {where}.") from fault
    request = compiled.create_infer_request()
    output = compiled.outputs[0]

    def infer(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray(request.infer({0: batch}, share_inputs=True)[output], np.float32)

    return Network("openvino", "cpu", compiled.get_property("INFERENCE_PRECISION_HINT").to_string(), infer)


def _options(ov: Any, precision: str) -> dict[str, Any]:
    """Options of the CPU device: one batch at a time, on all cores."""
    types = {"auto": ov.Type.f32, "f32": ov.Type.f32, "bf16": ov.Type.bf16, "f16": ov.Type.f16}
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": types[precision],
        "ENABLE_CPU_PINNING": False,  # decoding threads share these cores; pinned threads would wait for them
    }
