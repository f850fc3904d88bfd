"""Measure throughput and latency of the server on one core, and write docs/results/serving.

    python benchmarks/serving.py [--rounds 3] [--seconds 8]

Servers run on one core, and the clients on another, over the loopback interface. Each client sends one review a request and waits for
the answer (a closed loop). In each round, every server is measured after the offline rate: the same model on the same core, in a process
that predicts all reviews in one call. The model is all-MiniLM-L6-v2 under logistic regression, exported to int8; the reviews are
validation rows of ../shared/data/reviews_gpt2.csv or, without it, the sample.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import matplotlib.pyplot as plt
import numpy as np
from _contenders import prepare_pipeline
from _results import RESULTS, ROOT, describe, machine, write
from cpu_inference import MAX_LENGTH, reviews

from reviewguard import Classifier, Limits
from reviewguard.models.sources import locate

CLIENTS = (1, 8, 64)
OURS = "reviewguard serve"
#: Offline measurements, in a process of their own.
OFFLINE = """
import json, sys, time
from reviewguard import Classifier
classifier = Classifier.from_pretrained(sys.argv[1], runtime="onnxruntime", precision="int8", threads=1)
texts = json.load(open(sys.argv[2], encoding="utf-8"))
classifier.predict(texts[:200])
started = time.perf_counter()
classifier.predict(texts)
rate = len(texts) / (time.perf_counter() - started)
single = []
for text in texts[:300]:
    started = time.perf_counter()
    classifier.predict([text])
    single.append(time.perf_counter() - started)
print(json.dumps({"rate": rate, "p50": sorted(single)[150] * 1000}))
"""


def prepare(work: Path, texts: list[str], labels: list[str]) -> None:
    """Write the export, and the model for transformers' pipeline."""
    classifier = Classifier("minilm-logreg", encoder__max_length=MAX_LENGTH).fit(texts[:1000], labels[:1000])
    classifier.export(work / "export", (texts[:32], labels[:32]), int8=True, limits=Limits(texts=1, flips=1, f1=1))
    prepare_pipeline(locate(Classifier("minilm-logreg")._recipe().encoder).folder, work / "huggingface")


@contextlib.contextmanager
def serving(command: list[str], port: int, core: int) -> Iterator[None]:
    """Run a server on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    pinned = ["taskset", "--cpu-list", str(core), sys.executable, *command]
    process = subprocess.Popen(pinned, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1)
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


async def closed_loop(port: int, clients: int, texts: list[str], seconds: float) -> dict[str, float]:
    """Reviews a second, and quantiles of the latency in milliseconds."""
    latencies: list[float] = []
    stop = time.perf_counter() + seconds
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    headers = {"Content-Type": "application/json"}

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        position = number * len(bodies) // clients
        while (started := time.perf_counter()) < stop:
            body = bodies[position % len(bodies)]
            position += 1
            async with session.post(f"http://127.0.0.1:{port}/predict", data=body, headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()
            latencies.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(client(session, number) for number in range(clients)))
        elapsed = time.perf_counter() - started
    p50, p99 = (1000 * float(value) for value in np.percentile(latencies, (50, 99)))
    return {"rate": len(latencies) / elapsed, "p50": p50, "p99": p99}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(work: Path, texts: list[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The results of each round."""
    server_core, client_core = sorted(os.sched_getaffinity(0))[:2]
    listed = work / "texts.json"
    listed.write_text(json.dumps(texts), encoding="utf-8")
    plain = str(Path(__file__).with_name("_plain_server.py"))
    servers = {
        OURS: ["-m", "reviewguard", "serve", str(work / "export"), "--runtime", "onnxruntime", "--precision", "int8", "--port"],
        "FastAPI handler, predict_detailed": [plain, "reviewguard", str(work / "export")],
        "FastAPI handler, transformers' pipeline": [plain, "pipeline", str(work / "huggingface")],
    }
    results = []
    for _ in range(rounds):
        offline = ["taskset", "--cpu-list", str(server_core), sys.executable, "-c", OFFLINE, str(work / "export"), str(listed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(offline, env=environment, check=True, capture_output=True, text=True)
        result: dict[str, Any] = {"offline": json.loads(done.stdout.splitlines()[-1]), "servers": {}}
        for name, command in servers.items():
            port = free_port()
            with serving([*command, str(port)], port, server_core):
                os.sched_setaffinity(0, {client_core})
                asyncio.run(closed_loop(port, 8, texts, 2))
                of = {str(clients): asyncio.run(closed_loop(port, clients, texts, seconds)) for clients in CLIENTS}
                os.sched_setaffinity(0, {server_core, client_core})
            result["servers"][name] = of
            print(name, json.dumps(of), flush=True)
        print(json.dumps(result["offline"]), flush=True)
        results.append(result)
    return results


def median(results: list[dict[str, Any]], name: str, clients: int, key: str) -> float:
    """The median over the rounds."""
    return float(np.median([result["servers"][name][str(clients)][key] for result in results]))


def share(results: list[dict[str, Any]], name: str, clients: int) -> float:
    """The median over the rounds of the throughput in relation to the offline rate of the same round."""
    return float(np.median([one["servers"][name][str(clients)]["rate"] / one["offline"]["rate"] for one in results]))


def page(results: list[dict[str, Any]], about: dict[str, Any], asked: argparse.Namespace, count: int) -> str:
    """The results as Markdown."""
    rate = float(np.median([one["offline"]["rate"] for one in results]))
    single = float(np.median([one["offline"]["p50"] for one in results]))
    lines = [
        "# Serving on one core",
        "",
        f"The server runs on one core and the clients on another. Each client sends one review and waits for the answer. Offline, the "
        f"same core predicts {rate:.0f} reviews/s in one call, and one review in {single:.1f} ms (median). Medians of {len(results)} "
        f"rounds; in each, a server answers for {asked.seconds:g} s at each number of clients. {count} reviews.",
        "",
        "| Server | Clients | Reviews/s | Share of offline | p50, ms | p99, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in results[0]["servers"]:
        for clients in CLIENTS:
            values = [median(results, name, clients, key) for key in ("rate", "p50", "p99")]
            relative = 100 * share(results, name, clients)
            lines.append(f"| {name} | {clients} | {values[0]:.0f} | {relative:.0f} % | {values[1]:.1f} | {values[2]:.1f} |")
    extra = float(np.median([one["servers"][OURS]["1"]["p50"] - one["offline"]["p50"] for one in results]))
    lines += [
        "",
        f"With one client, the median of `{OURS}` is {extra:.1f} ms above that of `predict([text])`.",
        "",
        "![Throughput and latency by the number of clients](serving.svg)",
        "",
        "The model is all-MiniLM-L6-v2 under logistic regression, exported to int8 and run by onnxruntime on one thread. transformers' "
        "pipeline runs the same encoder in fp32. Its handler and the plain one run a request in a thread, as FastAPI does with "
        "functions that are not coroutines.",
        "",
        describe(about) + " Command: `python benchmarks/serving.py`.",
    ]
    return "\n".join(lines)


def plot(results: list[dict[str, Any]]) -> None:
    """Throughput and latency by the number of clients."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name in results[0]["servers"]:
        left.plot(CLIENTS, [median(results, name, clients, "rate") for clients in CLIENTS], marker="o", label=name)
        (line,) = right.plot(CLIENTS, [median(results, name, clients, "p50") for clients in CLIENTS], marker="o")
        right.plot(CLIENTS, [median(results, name, clients, "p99") for clients in CLIENTS], linestyle=":", color=line.get_color())
    left.axhline(float(np.median([one["offline"]["rate"] for one in results])), color="grey", linestyle="--", label="offline")
    left.set(xscale="log", xlabel="Clients", ylabel="Reviews/s", ylim=(0, None), xticks=CLIENTS, xticklabels=CLIENTS)
    right.set(xscale="log", yscale="log", xlabel="Clients", ylabel="Latency, ms", xticks=CLIENTS, xticklabels=CLIENTS)
    right.set_title("p50 (solid) and p99 (dotted)", fontsize="medium")
    left.minorticks_off()
    right.xaxis.set_minor_locator(plt.NullLocator())
    left.legend(fontsize="small")
    figure.savefig(RESULTS / "serving.svg", metadata={"Date": None})


def main() -> None:
    """Prepare the models, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    asked = parser.parse_args()
    texts, labels, _ = reviews(2000, "validation")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), texts, labels)
        results = measure(Path(folder), texts, asked.rounds, asked.seconds)
    about = machine(["fastapi", "uvicorn", "uvloop", "httptools"])
    write("serving", {"machine": about, "seconds": asked.seconds, "rounds": results}, page(results, about, asked, len(texts)))
    plot(results)


if __name__ == "__main__":
    main()
