"""Parquet at s3:// URLs over HTTP: a store without folders and renames, whose listings fsspec caches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import s3fs
from moto.server import ThreadedMotoServer
from pyarrow import parquet

from reviewguard import Classifier
from reviewguard.errors import DataError
from reviewguard.scale import predict_parquet
from reviewguard.scale.predict import RECORD

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.usefixtures("cluster"),
]
TEXTS = [f"Kettle {i} {'boils' if i % 2 else 'leaks'}." for i in range(90)]


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """Options for a store that has the bucket "shop"."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    s3fs.S3FileSystem(**found).mkdir("shop")
    yield found
    server.stop()


def test_from_bucket_to_bucket(options: dict[str, Any], exported: Path) -> None:
    def put(day: int, texts: list[str]) -> None:
        with s3fs.S3FileSystem(**options, use_listings_cache=False).open(f"shop/reviews/2026/{day}.parquet", "wb") as file:
            parquet.write_table(pa.table({"text": texts}), file, row_group_size=10)

    def predict(source: str = "s3://shop/reviews"):
        return predict_parquet(
            source, "s3://shop/predicted", exported, part_rows=20, precision="fp32", actors=1, storage_options=options
        )

    put(1, TEXTS[:50])
    assert predict().rows == 50
    # New files are visible even to a process that has listed both places before.
    put(2, TEXTS[50:])
    summary = predict()
    assert (summary.rows, summary.resumed) == (90, 50)
    put(2, TEXTS[:40])
    assert predict("s3://shop/reviews/*/*.parquet").resumed == 50
    put(2, TEXTS[50:])
    predict()

    store = s3fs.S3FileSystem(**options, use_listings_cache=False)
    names = sorted(name.removeprefix("shop/predicted/") for name in store.find("shop/predicted"))
    parts = ["2026/1-00000.parquet", "2026/1-00002.parquet", "2026/1-00004.parquet"]
    assert names == [*parts, "2026/2-00000.parquet", "2026/2-00002.parquet", RECORD]
    found = pa.concat_tables(parquet.read_table(f"shop/predicted/{name}", filesystem=store) for name in names[:-1])
    assert found["text"].to_pylist() == TEXTS
    assert found["predicted_label"].to_pylist() == Classifier.from_pretrained(exported).predict(TEXTS).tolist()


def test_unusable_places_are_refused(options: dict[str, Any], exported: Path) -> None:
    with pytest.raises(DataError, match="there are no Parquet files"):
        predict_parquet("s3://shop/nothing", "s3://shop/out", exported, storage_options=options)
    with pytest.raises(DataError, match="there are no Parquet files"):
        predict_parquet("s3://nobody/reviews", "s3://shop/out", exported, storage_options=options)
    refused = {
        **options,
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    with pytest.raises(DataError, match="cannot read nobody/reviews"):
        predict_parquet("s3://nobody/reviews", "s3://shop/out", exported, storage_options=refused)
