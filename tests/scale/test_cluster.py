"""A cluster of two nodes with killed actors and jobs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from reviewguard import Classifier
from reviewguard.inference.streaming import predict_file
from reviewguard.scale.predict import RECORD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
ROWS = 100_000
FILES = 4


@pytest.fixture
def address() -> Iterator[str]:
    """Address of a cluster of two nodes with one core each, which is shut down afterwards."""
    import ray
    from ray.cluster_utils import Cluster

    assert not ray.is_initialized(), "this test starts its own cluster: run it separately from tests that share one"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same rows as a folder of Parquet files and as a CSV file."""
    folder = tmp_path_factory.mktemp("reviews")
    texts = [
        f"Kettle {i}: {'boils fast' if i % 3 else 'leaks'}, {'the lid rattles ' * (i % 7)}I recommend it." for i in range(ROWS)
    ]
    (folder / "in").mkdir()
    for number in range(FILES):
        rows = range(number * ROWS // FILES, (number + 1) * ROWS // FILES)
        table = pa.table({"id": list(rows), "text": [texts[row] for row in rows]})
        parquet.write_table(table, folder / "in" / f"{number}.parquet", row_group_size=2500)
    with open(folder / "in.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    return folder / "in", folder / "in.csv"


SCRIPT = """
import json, sys
from reviewguard.scale import predict_parquet
import msgspec
print(json.dumps(msgspec.to_builtins(predict_parquet(*sys.argv[1:4], part_rows=2500, runtime="onnxruntime"))), flush=True)
"""


def start(address: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def wait(until: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not until():
        assert process.poll() is None, "the process ended early"
        time.sleep(0.05)


def finished(out: Path) -> list[Path]:
    return sorted(out.glob("*.parquet"))


def require_local(out: Path, csv_file: Path, exported: Path, tmp_path: Path) -> None:
    """All rows exactly once and in order, with the predictions of the local engine."""
    predict_file(Classifier.from_pretrained(exported, runtime="onnxruntime", threads=2), csv_file, tmp_path / "local.jsonl")
    local = [json.loads(line) for line in (tmp_path / "local.jsonl").read_text().splitlines()]
    output = pa.concat_tables(parquet.read_table(path) for path in finished(out))
    assert output["id"].to_pylist() == list(range(ROWS))
    for name in ("predicted_label", "decision", "truncated", "out_of_distribution", "error"):
        assert output[name].to_pylist() == [row[name] for row in local]
    np.testing.assert_allclose(output["predicted_score"].to_numpy(), [row["predicted_score"] for row in local], atol=1e-5)


def test_two_nodes_with_a_killed_worker(address: str, reviews: tuple[Path, Path], exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(address, reviews[0], out, exported)
    wait(lambda: len(finished(out)) >= 8, job)
    actors = [process for process in psutil.process_iter() if "_Parts" in " ".join(process.cmdline()[:2])]
    assert len(actors) == 2, "one per node"
    actors[0].send_signal(signal.SIGKILL)
    output, _ = job.communicate()
    assert job.returncode == 0
    summary = json.loads(output.splitlines()[-1])
    assert (summary["rows"], summary["errors"]) == (ROWS, 0)
    assert {path.name for path in out.iterdir()} - {path.name for path in finished(out)} <= {RECORD, *strays(out)}
    assert len(strays(out)) <= 1, "the unfinished file of the killed worker"
    require_local(out, reviews[1], exported, tmp_path)


def strays(out: Path) -> set[str]:
    return {path.name for path in out.glob(".*.tmp")}


def test_a_killed_job_computes_only_missing_parts(reviews: tuple[Path, Path], exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start("local", reviews[0], out, exported)
    wait(lambda: len(finished(out)) >= 8, job)
    family = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
    for process in family:
        process.kill()
    job.communicate()
    psutil.wait_procs(family)
    made = {path.name: path.stat().st_mtime_ns for path in finished(out)}
    assert 8 <= len(made) < ROWS // 2500
    again = start("local", reviews[0], out, exported)
    output, _ = again.communicate()
    summary = json.loads(output.splitlines()[-1])
    assert (summary["rows"], summary["resumed"]) == (ROWS, 2500 * len(made))
    assert {name: when for name, when in made.items() if (out / name).stat().st_mtime_ns != when} == {}
    assert strays(out) == set()
    require_local(out, reviews[1], exported, tmp_path)
