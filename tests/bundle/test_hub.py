import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reviewguard.bundle.hub import is_repo_id

COMMIT, OTHER = "a" * 40, "b" * 40
ADVICE = "Check the name and the network, or pass a local folder"

FETCH = """
import json, sys
from reviewguard.errors import BundleError, EncoderError
from reviewguard.bundle.hub import fetch
errors = {"BundleError": BundleError, "EncoderError": EncoderError}
answers = []
for repo, revision, error, only in json.loads(sys.argv[1]):
    try:
        answers.append(["found", str(fetch(repo, revision, errors[error], only=only))])
    except (BundleError, EncoderError) as caught:
        answers.append([type(caught).__name__, str(caught)])
print(json.dumps(answers))
"""


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("owner/name", True),
        ("sentence-transformers/all-MiniLM-L6-v2", True),
        ("a.b_c/d", True),
        ("name", False),
        ("a/b/c", False),
        ("/a", False),
        ("a/", False),
        ("a b/c", False),
        ("a/b\n", False),
        ("", False),
        ("./model", False),
        ("../model", False),
        ("~/model", False),
        ("C:\\model", False),
    ],
)
def test_is_repo_id(name, valid):
    assert is_repo_id(name) is valid


@pytest.fixture
def cache(tmp_path) -> Path:
    """A cache of huggingface_hub that holds one commit of owner/name, its main branch."""
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


def _fetch(cache: Path, *requests: tuple, **environment: str) -> list[list[str]]:
    # huggingface_hub reads its environment on import.
    variables = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"} | environment
    command = [sys.executable, "-W", "error", "-c", FETCH, json.dumps(requests)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cached_files_are_used_offline(cache):
    requests = [
        ("owner/name", revision, "EncoderError", only) for revision in (None, "main", COMMIT) for only in (None, ["*.json"])
    ]
    assert _fetch(cache, *requests) == [["found", str(cache / "models--owner--name" / "snapshots" / COMMIT)]] * 6


def test_files_that_are_not_cached_raise_the_given_error(cache):
    requests = [
        ("owner/absent", None, "BundleError", None),
        ("owner/name", OTHER, "EncoderError", ["*.json"]),
        ("-owner/name", None, "BundleError", None),
    ]
    for (repo, revision, error, _), (name, message) in zip(requests, _fetch(cache, *requests), strict=True):
        assert name == error
        assert f"cannot fetch {repo} (revision {revision or 'main'})" in message
        assert message.endswith(ADVICE)


class _Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.server.answer == "drop":
            self.close_connection = True
        else:
            self.send_error(int(self.server.answer))

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("answer", ["drop", "401", "404"])
def test_a_failing_hub_raises_the_given_error(cache, answer):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        server.answer = answer
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1"}
        try:
            [[name, message]] = _fetch(cache, ("owner/absent", None, "BundleError", None), **environment)
        finally:
            server.shutdown()
            thread.join()
    assert name == "BundleError"
    assert "cannot fetch owner/absent" in message
    assert message.endswith(ADVICE)


def test_an_unreachable_hub_raises_the_given_error(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound but not listening, so connections are refused
        environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{free.getsockname()[1]}", "NO_PROXY": "127.0.0.1"}
        [[name, message]] = _fetch(cache, ("owner/absent", None, "EncoderError", None), **environment)
    assert name == "EncoderError"
    assert message.endswith(ADVICE)
