"""Compare the speed of this project and other libraries on a CPU, and write docs/results/cpu-inference-SIZE.

    python benchmarks/cpu_inference.py {minilm,stella} [--other PYTHON] [--reviews N] [--thousand NAME] [--only NAME ...] [--cores N]

Needs `pip install sentence-transformers setfit fastembed matplotlib` in addition to the project's own packages. Libraries that are not
installed or cannot run are listed with the reason. The ONNX and OpenVINO backends of sentence-transformers need optimum, which conflicts
with transformers 5: `--other` names the Python of a separate environment (`pip install 'sentence-transformers[onnx,openvino]'`).
`--cores` limits the measured processes, not the preparation, to that many cores of a larger machine. The reviews are validation rows of
../shared/data/reviews_gpt2.csv or, without it, the sample. MiniLM has its published weights; Stella has its published architecture and
size with random weights, which affect only the labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch
from _contenders import CONTENDERS, MAX_LENGTH, prepare_pipeline
from _qlora import SIZES
from _results import RESULTS, ROOT, SHARED, describe, machine, run_apart, write
from onnx import TensorProto, helper, numpy_helper

from reviewguard import Classifier, Limits
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.tokens import Tokenizer
from reviewguard.inference.engines.cores import available_cores
from reviewguard.inference.engines.openvino import computes_in_bf16
from reviewguard.models.sources import locate

#: Libraries that run in the other environment.
ELSEWHERE = ("sentence-transformers, onnx", "sentence-transformers, openvino")
PRESETS = {"minilm": "minilm-logreg", "stella": "stella-logreg"}
#: Number of training rows for our head; with random weights, more rows make no difference.
FITTED_ON = {"minilm": 4000, "stella": 32}
TITLES = {"minilm": "all-MiniLM-L6-v2", "stella": "Stella-400M"}
KINDS = {"": "", "bf16": " that computes in bf16", "amx": " that computes in bf16 with AMX"}
#: Size of the matrix products: large enough to saturate a CPU, small enough for its cache.
PRODUCT = 1024
#: Number of reviews that the study timed.
THOUSAND = 1000


def reviews(count: int, split: str) -> tuple[list[str], list[str], str]:
    """Texts, their labels, and the name of their file."""
    source = SHARED / "reviews_gpt2.csv"
    if not source.is_file():
        source = ROOT / "examples" / "sample_reviews.csv"
    with open(source, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split", split) == split]
    # The file is not shuffled.
    drawn = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))[:count]]
    return [NORMALIZERS["typography"](row["text"]) for row in drawn], [row["label"] for row in drawn], source.name


def prepare(size: str, work: Path) -> dict[str, str]:
    """Write the folders to load: an encoder, a model for transformers' pipeline, and our model, saved and exported."""
    texts, labels, _ = reviews(FITTED_ON[size], "train")
    import transformers

    minilm = locate(Classifier(PRESETS["minilm"])._recipe().encoder).folder
    settings: dict[str, Any] = {}
    if size == "minilm":
        encoder = minilm
    else:
        encoder = work / "encoder"
        torch.manual_seed(0)
        known = dict(SIZES["stella-qlora"])
        config = transformers.AutoConfig.for_model(known.pop("model_type"), **known)
        transformers.AutoModel.from_config(config).save_pretrained(encoder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (encoder / name).write_bytes((minilm / name).read_bytes())
        settings = {"encoder__repo": str(encoder), "encoder__revision": "", "encoder__dense": "", "encoder__weights_sha256": ""}
    classifier = Classifier(PRESETS[size], encoder__max_length=MAX_LENGTH, **settings).fit(texts, labels)
    classifier.save(work / "saved")
    loose = Limits(texts=1, flips=1, f1=1)
    report = classifier.export(work / "export", (texts[:32], labels[:32]), int8=True, limits=loose)
    prepare_pipeline(encoder, work / "huggingface")
    print(report.to_text())
    folders = {"encoder": encoder, "saved": work / "saved", "export": work / "export", "huggingface": work / "huggingface"}
    return {name: str(folder) for name, folder in folders.items()}


def keep_to(count: int) -> None:
    """Limit this process and its children to `count` physical cores, since two threads of a core share its units.

    Raises:
        SystemExit: If there are fewer cores.
    """
    cores = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="utf-8")
        cores.setdefault(siblings, cpu)
    if count > len(cores):
        raise SystemExit(f"--cores is {count}, but this process may use only {len(cores)}")
    os.sched_setaffinity(0, list(cores.values())[:count])
    torch.set_num_threads(count)


def measure(size: str, folders: dict[str, str], texts: list[str], count: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure every library at one size."""
    listed = Path(folders["saved"]).with_name("texts.json")
    listed.write_text(json.dumps(texts), encoding="utf-8")
    spec = {**folders, "texts": str(listed), "count": count, "max_length": MAX_LENGTH}
    results = {}
    for name in asked.only or CONTENDERS:
        if reason := unfit(name, size):
            results[name] = {"outcome": reason}
            continue
        python = asked.other if name in ELSEWHERE else sys.executable
        also = THOUSAND if name == asked.thousand else 0
        warm = run_apart("_contenders.py", {**spec, "contender": name, "cold": False, "also": also}, 3600, python=python)
        cold = run_apart("_contenders.py", {**spec, "contender": name, "cold": True, "started": time.time()}, 600, python=python)
        results[name] = {**cold, **warm, "disk_mib": disk_mib(name, folders)}
        speed = results[name].get("reviews_per_second")
        print(f"{size}: {name}: {f'{speed:.1f} reviews/s' if speed else results[name].get('error', '')}", flush=True)
    reference = results.get("ours, torch", {}).get("labels")
    for name, result in results.items():
        labels = result.pop("labels", None)
        if reference and labels and name.startswith("ours"):
            result["agreement"] = float(np.mean(np.array(labels) == np.array(reference)))
    return results


def unfit(contender: str, size: str) -> str:
    """Why a library cannot run; empty if it can."""
    if "bf16" in contender and not computes_in_bf16():
        return "this CPU does not compute in bf16"
    if contender == "fastembed" and size != "minilm":
        return "it has no model of this architecture"
    return ""


def disk_mib(contender: str, folders: dict[str, str]) -> float:
    """Size of the weight files that a library loads."""
    if contender.startswith("ours") and "torch" not in contender:
        graph = "model_quantized.onnx" if "int8" in contender else "model.onnx"
        files = list((Path(folders["export"]) / "onnx").glob(f"{graph}*"))
    else:
        files = list(Path(folders["encoder"]).glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / 2**20


def limits(threads: int) -> dict[str, float]:
    """Rate of matrix products on this machine in 1e9 operations per second, two per multiply-add, by type."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(PRODUCT, PRODUCT, dtype=dtype) for _ in range(2))
        rates[name] = _rate(lambda a=a, b=b: a @ b)
    weights = np.random.default_rng(0).integers(-128, 128, (PRODUCT, PRODUCT)).astype(np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    shape = [PRODUCT, PRODUCT]
    x, y = (helper.make_tensor_value_info(n, t, shape) for n, t in (("x", TensorProto.UINT8), ("y", TensorProto.INT32)))
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rates["int8"] = _rate(lambda: session.run(None, {"x": weights.view(np.uint8)}))
    return rates


def _rate(work: Any) -> float:
    work()
    times = []
    for _ in range(20):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(2 * PRODUCT**3 / np.median(times) / 1e9)


def operations(size: str, texts: list[str], saved: Path) -> tuple[float, float]:
    """Mean tokens of a review, and operations of the linear layers for it, in 1e9."""
    tokenizer = Tokenizer((saved / "tokenizer.json").read_bytes(), (saved / "tokenizer_config.json").read_bytes(), MAX_LENGTH)
    tokens = float(np.mean([len(item.ids) for item in tokenizer.encode(texts)]))
    parameters = {"minilm": 6 * 12 * 384**2, "stella": 24 * (4 + 3 * 4) * 1024**2}[size]
    return tokens, 2 * parameters * tokens / 1e9


def main() -> None:
    """Prepare, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=list(PRESETS))
    parser.add_argument("--reviews", type=int, help="default: 1000 at MiniLM's size, 100 at Stella's")
    parser.add_argument("--other", default=sys.executable, metavar="PYTHON", help="Python of the environment with optimum")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=[], metavar="NAME")
    parser.add_argument(
        "--thousand", choices=list(CONTENDERS), metavar="NAME", help=f"a library to time on {THOUSAND} reviews too"
    )
    parser.add_argument("--cores", type=int, metavar="N", help="cores to measure on; default: all that this process may use")
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # otherwise torch would use a GPU, here and in the measured processes
    size = arguments.size
    count = arguments.reviews or {"minilm": 1000, "stella": 100}[size]
    texts, _, source = reviews(max(count, THOUSAND if arguments.thousand else 0), "validation")
    with tempfile.TemporaryDirectory() as scratch:
        folders = prepare(size, Path(scratch))
        if arguments.cores:
            keep_to(arguments.cores)
        rates = limits(available_cores())
        measured = measure(size, folders, texts, count, arguments)
        tokens, cost = operations(size, texts[:count], Path(scratch) / "saved")
    about = machine(("openvino", "sentence-transformers", "setfit", "fastembed"))
    result = {
        "size": size,
        "kind": kind(),
        "load": os.getloadavg()[1],
        "machine": about,
        "source": source,
        "limits": rates,
        "reviews": count,
        "fitted_on": FITTED_ON[size],
        "tokens": tokens,
        "gigaoperations": cost,
    }
    result["contenders"] = measured
    draw(result)
    write(name_of(size, result["kind"]), result, page(result))


def kind() -> str:
    """Kind of CPU: "amx" or "bf16" if it computes in bf16, with or without AMX; otherwise empty."""
    if not computes_in_bf16():
        return ""
    return "amx" if "amx_bf16" in machine()["cpu"] else "bf16"


def name_of(size: str, kind: str) -> str:
    """Name of the result files; each kind of CPU has its own, since the ranking differs."""
    return f"cpu-inference-{size}{f'-{kind}' if kind else ''}"


def page(of: dict[str, Any]) -> str:
    """Render the results as Markdown."""
    size, rates = of["size"], of["limits"]
    saved = name_of(size, of["kind"])
    of_labels = f"Our head is fitted on {of['fitted_on']} training rows."
    if size == "stella":
        of_labels = "At this size the weights are random, so labels are meaningless."
    base = of["contenders"].get("transformers pipeline", {}).get("reviews_per_second")
    rows = [
        "| library | reviews/s | tokens/s | relative to the pipeline | share of peak | p50, p99 per review (ms) | cold start (s) | "
        "peak memory (MiB) | weights (MiB) | same labels as torch |",
        "| --- " * 10 + "|",
    ]
    for name, result in of["contenders"].items():
        speed = result.get("reviews_per_second")
        if speed is None:
            continue
        kind = next((kind for kind in ("int8", "bf16") if kind in name), "fp32")
        single = result["single_milliseconds"]
        agreement = f"{100 * result['agreement']:.2f} %" if "agreement" in result else ""
        rows.append(
            f"| {name} | {speed:.1f} | {speed * of['tokens']:.0f} | {f'{speed / base:.2f}x' if base else ''} | "
            f"{100 * speed * of['gigaoperations'] / rates[kind]:.0f} % of {kind} | {single['p50']:.1f}, {single['p99']:.1f} | "
            f"{result.get('cold_start_seconds', float('nan')):.2f} | {result['peak_memory_mib']:.0f} | {result['disk_mib']:.0f} | "
            f"{agreement} |"
        )
    parts = [
        f"# Prediction on a CPU{KINDS[of['kind']]}, at the size of {TITLES[size]}",
        f"{of['reviews']} reviews of `{of['source']}`, with {of['tokens']:.0f} tokens on average and at most {MAX_LENGTH}. All libraries "
        f"run in sequence on the same reviews. Cold start is from the start of the process to the first prediction. {of_labels}",
        f"![Reviews per second]({saved}.png)",
        "\n".join(rows),
        *absent(of),
        *thousands(of),
        f"Matrix products of {PRODUCT} x {PRODUCT} reach "
        + ", ".join(f"{rate:.0f} billion operations per second in {name}" for name, rate in rates.items())
        + " on this machine. The share of peak is the rate of the linear layers relative to this rate in the same type.",
    ]
    packages = {name: of["contenders"].get(name, {}).get("packages", {}) for name in ELSEWHERE}
    parts += [
        f"{name}, in a separate environment: {', '.join(f'{k} {v}' for k, v in versions.items())}."
        for name, versions in packages.items()
        if versions
    ]
    if of.get("load", 0) > of["machine"]["cores"] + 1:
        parts.append(f"Other work ran on other cores of the machine at the same time (load {of['load']:.0f}).")
    made = f"Made by `python benchmarks/cpu_inference.py {size}`; data in [{saved}.json]({saved}.json)."
    return "\n\n".join([*parts, describe(of["machine"]), made]) + "\n"


def absent(of: dict[str, Any]) -> list[str]:
    """Paragraphs about the libraries that did not run, if any."""
    lines = []
    for name, result in of["contenders"].items():
        if "reviews_per_second" not in result:
            # Two backticks, since error messages may contain single ones.
            lines.append(f"- {name}: " + (f"`` {result['error']} ``" if "error" in result else result["outcome"]))
    return ["Did not run:", "\n".join(lines)] if lines else []


def thousands(of: dict[str, Any]) -> list[str]:
    """A paragraph for each library that was timed on more reviews."""
    timed = {name: result["also_seconds"] for name, result in of["contenders"].items() if "also_seconds" in result}
    return [f"{THOUSAND:,} reviews took {seconds:.1f} s with {name}." for name, seconds in timed.items()]


def draw(of: dict[str, Any]) -> None:
    """Draw reviews per second as bars."""
    contenders = of["contenders"]
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    speeds = {name: r["reviews_per_second"] for name, r in contenders.items() if "reviews_per_second" in r}
    names = sorted(speeds, key=lambda name: speeds[name])
    colours = ["tab:blue" if name.startswith("ours") else "lightgrey" for name in names]
    bars = axis.barh(names, [speeds[name] for name in names], color=colours)
    axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.set(title=TITLES[of["size"]], xlabel="reviews per second")
    axis.margins(x=0.12)
    figure.savefig(RESULTS / f"{name_of(of['size'], of['kind'])}.png", dpi=120)


if __name__ == "__main__":
    main()
