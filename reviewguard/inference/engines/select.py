"""Select the engine and the precision for an export."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, Literal, TypeAlias, get_args

from reviewguard.bundle.folder import Bundle
from reviewguard.errors import BundleError, ConfigError, requires
from reviewguard.inference.engines.cores import available_cores
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.engines.external import external_files
from reviewguard.inference.engines.onnx import OnnxScorer

Engine: TypeAlias = Literal["auto", "onnxruntime", "openvino"]
"""Engine that runs an export."""
Precision: TypeAlias = Literal["auto", "fp32", "bf16", "int8"]
"""Precision in which an export runs."""

#: Paths of an export's graphs in the bundle, by precision.
GRAPHS: Final = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}


def is_export(names: Container[str]) -> bool:
    """Whether these file names are those of an ONNX export."""
    return any(graph in names for graph in GRAPHS.values())


def open_scorer(bundle: Bundle, engine: Engine = "auto", precision: Precision = "auto", threads: int = 0) -> CpuScorer:
    """Open an export with an engine and a precision.

    With "auto", OpenVINO in bf16 is selected if it is installed and the CPU supports bf16. Otherwise onnxruntime is selected, in
    int8 if the export contains it.

    Args:
        bundle: Bundle with at least one of `GRAPHS`.
        engine: Engine, or "auto".
        precision: Precision, or "auto". "int8" requires onnxruntime, "bf16" requires OpenVINO, and "fp32" works with both.
        threads: Number of cores to use. 0: all cores available to the process.

    Raises:
        BundleError: If the graph refers to files that the manifest does not list.
        ConfigError: If engine and precision are incompatible, or if the export lacks the graph.
        MissingExtra: If OpenVINO is requested and not installed.
    """
    for name, value, allowed in (("runtime", engine, get_args(Engine)), ("precision", precision, get_args(Precision))):
        if value not in allowed:
            raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
    engine, precision = _resolve(bundle, engine, precision)
    graph = GRAPHS["int8" if precision == "int8" else "fp32"]
    if graph not in bundle:
        raise ConfigError(
            f"{bundle.folder} has no {graph}, which {precision} requires; it contains {', '.join(_graphs_in(bundle))}"
        )
    if foreign := [name for name in external_files(bundle.path(graph)) if f"onnx/{name}" not in bundle]:
        raise BundleError(f"{bundle.path(graph)} refers to {foreign[0]!r}, which the manifest does not list; it was not loaded")
    threads, path, classes = threads or available_cores(), bundle.path(graph), bundle.manifest.classes
    if engine == "onnxruntime":
        return OnnxScorer(path, classes, threads, precision)
    with requires("openvino"):
        from reviewguard.inference.engines.openvino import OpenVinoScorer
    return OpenVinoScorer(path, classes, threads, precision)


def _resolve(bundle: Bundle, engine: Engine, precision: Precision) -> tuple[Engine, Precision]:
    if (engine, precision) in (("onnxruntime", "bf16"), ("openvino", "int8")):
        other = "openvino" if engine == "onnxruntime" else "onnxruntime"
        raise ConfigError(f"{engine} does not support {precision}; omit one of the two, or set runtime={other!r}")
    if engine == "auto":
        use_openvino = precision == "bf16" or (precision == "auto" and GRAPHS["fp32"] in bundle and _bf16_available())
        engine = "openvino" if use_openvino else "onnxruntime"
    if precision == "auto" and engine == "openvino":
        precision = "bf16" if _bf16_available() else "fp32"
    elif precision == "auto":
        precision = "int8" if GRAPHS["int8"] in bundle else "fp32"
    return engine, precision


def _bf16_available() -> bool:
    try:
        from reviewguard.inference.engines.openvino import computes_in_bf16
    except ModuleNotFoundError:
        return False
    return computes_in_bf16()


def _graphs_in(bundle: Bundle) -> list[str]:
    return [graph for graph in GRAPHS.values() if graph in bundle]
