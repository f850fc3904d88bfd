"""The command that serves a model over HTTP."""

from __future__ import annotations

import os
import tempfile
from typing import Annotated, Literal

import msgspec
import typer

from reviewguard.config import decode
from reviewguard.errors import requires

_MIB = 2**20


def serve(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Folder or Hub id of a trained model; default: the built-in model.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model in paths, answers and metrics.")] = "reviewguard",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes, which share the cores.")] = 1,
    runtime: Annotated[Literal["auto", "onnxruntime", "openvino"], typer.Option(help="Engine of an export.")] = "auto",
    precision: Annotated[Literal["auto", "fp32", "bf16", "int8"], typer.Option(help="Precision of an export.")] = "auto",
    watch: Annotated[
        float, typer.Option(min=0, help="Seconds between looks at the model's folder; a changed model replaces the old one.")
    ] = 0.0,
    challenger: Annotated[
        str | None, typer.Option(help="Folder or Hub id of a second model for an A/B test, with the same classes.")
    ] = None,
    split: Annotated[float, typer.Option(help="Percentage of the keys that the challenger answers.")] = 50.0,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="The challenger predicts too, and only the first model answers.")
    ] = False,
    experiment: Annotated[str, typer.Option(help="Name of the A/B test; another name assigns keys anew.")] = "",
    log: Annotated[str | None, typer.Option(help="Folder for the log of decisions; default: no log.")] = None,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write texts to the log, not only their hashes.")] = False,
    max_texts: Annotated[int, typer.Option(min=1, help="Maximum number of texts of a request.")] = 256,
    max_mib: Annotated[float, typer.Option(min=0.001, help="Maximum size of a request, in MiB.")] = 1.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Maximum number of texts that wait in a process.")] = 4096,
) -> None:
    """Serve a model over HTTP. REVIEWGUARD_API_KEY, if set, is the key that requests must send."""
    with requires("serve"):
        import uvicorn

        from reviewguard.serve import application, settings
    from reviewguard.inference.engines.cores import available_cores

    values = {
        "model": model,
        "name": name,
        "runtime": runtime,
        "precision": precision,
        "threads": 0 if workers == 1 else max(1, available_cores() // workers),
        "limits": {"body_bytes": int(max_mib * _MIB), "texts": max_texts, "queue": max_queue},
        "watch_seconds": watch,
        "challenger": challenger,
        "split": split,
        "shadow": shadow,
        "experiment": experiment,
        "log": log,
        "log_texts": log_texts,
    }
    chosen = decode(values, settings.Settings, "the options")
    if workers == 1:
        api = application.application(chosen, os.environ.get(application.KEY_VARIABLE) or None)
        uvicorn.run(api, host=host, port=port)
        return
    with tempfile.TemporaryDirectory() as metrics:
        # Worker processes read their settings from the environment; prometheus-client adds up their metrics in files.
        os.environ[application.SETTINGS_VARIABLE] = msgspec.json.encode(chosen).decode()
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", metrics)
        uvicorn.run("reviewguard.serve:from_environment", factory=True, host=host, port=port, workers=workers)
