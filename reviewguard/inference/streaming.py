"""Predict a file of any length in constant memory, keep its other columns, and resume after an interruption."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import msgspec
from filelock import Timeout
from tqdm import tqdm

from reviewguard import files
from reviewguard.data.rows import STREAMED, File, open_rows
from reviewguard.data.tables import TEXT_COLUMNS, pick_column
from reviewguard.errors import DataError
from reviewguard.inference.model import CHUNK_TEXTS, TrainedModel
from reviewguard.inference.scoring import Prediction

#: Characters. Anything longer is not a review but another document, or several texts that lost their separators.
MAX_TEXT: Final = 1_000_000


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a prediction run.

    Attributes:
        rows: Number of rows in the output.
        resumed: Rows that an earlier, interrupted run had written.
        errors: Rows without a usable text; the reason is in the `error` column.
        truncated: Rows longer than the model reads.
        out_of_distribution: Rows in another language or script than the training texts, or shorter than nearly all of them.
        out: Output file, or folder of Parquet files. None: standard output.
        seconds: Wall time of this run.
    """

    rows: int
    resumed: int
    errors: int
    truncated: int
    out_of_distribution: int
    out: str | None
    seconds: float


class _Progress(msgspec.Struct, kw_only=True):
    """Progress of a run, written after its rows are on disk, so that it never counts unwritten rows."""

    job: str  # hash of the model and the text column
    rows: int = 0
    errors: int = 0
    truncated: int = 0
    out_of_distribution: int = 0
    bytes_out: int = 0
    input_sha256: str = ""


def predict_file(
    trained: TrainedModel, source: str | os.PathLike[str], out: str | os.PathLike[str], *, text: str = ""
) -> Summary:
    """Add predictions to every row of a file. See `reviewguard.Classifier.predict_file`."""
    started = time.perf_counter()
    source, out = File.of(source), files.expanded(out)
    if out.suffix.casefold() not in STREAMED:
        raise DataError(f"{out} ends in {out.suffix!r}; predictions can be written as {', '.join(STREAMED)}")
    partial, record = out.with_name(out.name + ".partial"), out.with_name(out.name + ".progress")
    for path in (out, partial, record):
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise DataError(f"{path} is the input file, which would be overwritten; choose another output")
    try:
        with files.exclusive(out, timeout=0), open_rows(source) as (rows, position):
            text = text or trained.manifest.text_column
            job = hashlib.sha256(msgspec.json.encode([trained.manifest, text])).hexdigest()
            progress = _recorded_progress(partial, record, job)
            resumed = progress.rows
            size = Path(source).stat().st_size
            blocks = _blocks(trained, source, rows, out, text, progress)
            head = next(blocks, "")  # detect unusable input before anything is written
            with (
                open(partial, "ab") as sink,
                tqdm(total=size, unit="B", unit_scale=True, desc="predicting", disable=None) as bar,
            ):
                sink.truncate(progress.bytes_out)
                for block in chain([head], blocks):
                    sink.write(block.encode("utf-8", "replace"))
                    sink.flush()
                    os.fsync(sink.fileno())
                    progress.bytes_out = sink.tell()
                    files.replace(record, msgspec.json.encode(progress))
                    bar.update(position() - bar.n)
            os.replace(partial, out)
            record.unlink(missing_ok=True)
    except Timeout as error:
        raise DataError(f"another process is writing {out}; wait for it, or choose another file") from error
    except OSError as error:
        raise DataError(f"cannot predict {source} into {out}: {error.strerror or error}") from error
    return _summary(progress, resumed, str(out), started)


def predict_to(
    write: Callable[[str], object],
    trained: TrainedModel,
    source: str | os.PathLike[str],
    *,
    text: str = "",
    as_json: bool = False,
) -> Summary:
    """Pass on rows with predictions in blocks: as CSV or TSV like the source, and otherwise or with `as_json` as JSONL."""
    started, progress, text = time.perf_counter(), _Progress(job=""), text or trained.manifest.text_column
    source = File.of(source)
    with open_rows(source) as (rows, _):
        out = Path(f"-{'.jsonl' if as_json or not source.is_text else source.kind}")
        for block in _blocks(trained, source, rows, out, text, progress):
            write(block)
    return _summary(progress, 0, None, started)


def added_columns(classes: Sequence[str]) -> list[str]:
    """Names of the columns that predictions add, for a model with these classes."""
    scores = (f"score_{name}" for name in classes)
    return ["predicted_label", "predicted_score", *scores, "decision", "truncated", "out_of_distribution", "error"]


def text_column(names: Sequence[str], wanted: str, source: str, classes: Sequence[str]) -> str:
    """Find the text column.

    Raises:
        DataError: If there is no such column, or if an existing column has the name of an added one.
    """
    column = pick_column(names, wanted, TEXT_COLUMNS, "text", source)
    if taken := [name for name in added_columns(classes) if name in names]:
        raise DataError(f"{source} has columns that predictions would overwrite: {', '.join(taken)}; rename or remove them")
    return column


def _summary(progress: _Progress, resumed: int, out: str | None, started: float) -> Summary:
    return Summary(
        rows=progress.rows,
        resumed=resumed,
        errors=progress.errors,
        truncated=progress.truncated,
        out_of_distribution=progress.out_of_distribution,
        out=out,
        seconds=time.perf_counter() - started,
    )


def _recorded_progress(partial: Path, record: Path, job: str) -> _Progress:
    """Read the progress of an interrupted run."""
    if not partial.exists() or not record.exists():
        return _Progress(job=job)
    try:
        progress = msgspec.json.decode(record.read_bytes(), type=_Progress)
        if partial.stat().st_size < progress.bytes_out:
            raise ValueError(f"{partial} is shorter than recorded")
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataError(f"{record} is damaged ({error}); delete it and {partial} to start over") from error
    if progress.job != job:
        raise DataError(
            f"{partial} was started with another model or text column; delete it and {record} to start over, or choose "
            "another output"
        )
    return progress


def _blocks(
    trained: TrainedModel, source: File, rows: Iterator[dict[str, Any]], out: Path, text: str, progress: _Progress
) -> Iterator[str]:
    """Yield blocks of output for the rows after `progress`, and update `progress`."""
    first_row = next(rows, None)
    if first_row is None:
        raise DataError(f"{source} has no rows")
    names = added_columns(trained.manifest.classes)
    column = text_column(list(first_row), text, str(source), trained.manifest.classes)
    rows, digest = chain([first_row], rows), hashlib.sha256()
    for row in islice(rows, progress.rows):
        digest.update(_canonical(row))
    if progress.rows and digest.hexdigest() != progress.input_sha256:
        raise DataError(
            f"the first {progress.rows} rows of {source} differ from those that the interrupted run read; delete "
            f"{out}.partial and {out}.progress to start over"
        )
    write = _jsonl if out.suffix.casefold() in (".jsonl", ".ndjson") else _csv
    while chunk := list(islice(rows, CHUNK_TEXTS)):
        added_values = added(trained, [row.get(column) for row in chunk])
        header = progress.rows == 0
        for row in chunk:
            digest.update(_canonical(row))
        progress.input_sha256 = digest.hexdigest()
        progress.rows += len(chunk)
        progress.errors += sum(new["error"] is not None for new in added_values)
        progress.truncated += sum(new["truncated"] is True for new in added_values)
        progress.out_of_distribution += sum(new["out_of_distribution"] is True for new in added_values)
        yield write([*first_row, *names], chunk, added_values, header, out)


def added(trained: TrainedModel, texts: Sequence[object]) -> list[dict[str, Any]]:
    """Predict texts, and return the values of `added_columns` for each row."""
    blank: dict[str, Any] = dict.fromkeys(added_columns(trained.manifest.classes))
    errors = [_error(text) for text in texts]
    predictions = trained.stream(str(text) for text, error in zip(texts, errors, strict=True) if not error)
    return [blank | ({"error": error} if error else _columns(next(predictions))) for error in errors]


def _error(text: object) -> str | None:
    """Why a text cannot be predicted. None: it can."""
    if text is None:
        return "the text is missing or null"
    if not isinstance(text, str):
        return f"the text is a {type(text).__name__}, not a string"
    return f"the text has {len(text):,} characters, more than {MAX_TEXT:,}" if len(text) > MAX_TEXT else None


def _columns(answer: Prediction) -> dict[str, Any]:
    if answer.error is not None or answer.score is None:
        return {"error": answer.error}
    return {
        "predicted_label": answer.label,
        "predicted_score": round(answer.score, 6),
        **{f"score_{name}": round(score, 6) for name, score in answer.scores.items()},
        "decision": answer.decision,
        "truncated": answer.truncated,
        "out_of_distribution": answer.out_of_distribution,
    }


def _canonical(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=True, default=str).encode() + b"\n"


def _jsonl(names: list[str], rows: list[dict[str, Any]], gained: list[dict[str, Any]], header: bool, out: Path) -> str:
    return "".join(json.dumps({**row, **new}, default=str) + "\n" for row, new in zip(rows, gained, strict=True))


def _csv(names: list[str], rows: list[dict[str, Any]], gained: list[dict[str, Any]], header: bool, out: Path) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter="\t" if out.suffix.casefold() == ".tsv" else ",", lineterminator="\n")
    if header:
        writer.writeheader()
    for row, new in zip(rows, gained, strict=True):
        if extra := row.keys() - set(names):
            raise DataError(
                f"a row has the field {min(extra)!r}, which the first row lacks; write .jsonl instead of {out.suffix}"
            )
        nested = {name: json.dumps(value) for name, value in row.items() if isinstance(value, (dict, list))}
        writer.writerow({**row, **nested, **new})
    return text.getvalue()
