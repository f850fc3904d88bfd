"""Models to the Hub and back, with the real client over real HTTP."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, serving
from huggingface_hub import ModelCard

from reviewguard.bundle.manifest import MANIFEST

ROOT = Path(__file__).parent.parent
EXPORT = ROOT / "tests" / "golden" / "format-1" / "exported"
PUSH = "print(Classifier.from_pretrained(sys.argv[1]).push_to_hub('owner/model', {}))"
PULL = "print(Classifier.from_pretrained('owner/model', {}).predict_proba(['a good kettle', 'ok']).tolist())"
HEAD = "import sys\nfrom reviewguard import Classifier\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as served:
        yield served


class Machine:
    """A machine with a cache of its own; the client reads its environment when it is imported, so each call is a process."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def run(self, code: str, *arguments: object, **environment: str) -> str:
        done = self.attempt(code, *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refused(self, code: str, *arguments: object, **environment: str) -> str:
        """The last line of a traceback."""
        done = self.attempt(code, *arguments, **environment)
        assert done.returncode == 1, done.stdout
        return done.stderr[done.stderr.rindex("\nreviewguard.errors.") :].removeprefix("\nreviewguard.errors.")

    def attempt(self, code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", HEAD + code, *map(str, arguments)]
        return subprocess.run(command, env=self.environment | environment, capture_output=True, text=True)


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> Machine:
    return Machine(hub, tmp_path / "home")


def bundle_files() -> dict[str, bytes]:
    return {path.relative_to(EXPORT).as_posix(): path.read_bytes() for path in EXPORT.rglob("*") if path.is_file()}


def listing(files: dict[str, bytes], entries: dict[str, dict[str, object]]) -> dict[str, bytes]:
    """Files with a manifest that lists others."""
    return {**files, MANIFEST: json.dumps({**json.loads(files[MANIFEST]), "files": entries}).encode()}


def test_what_is_pushed_comes_back(hub: Hub, machine: Machine, tmp_path: Path):
    commit = machine.run(PUSH.format("private=True, license='apache-2.0', datasets=['owner/reviews']"), EXPORT)
    repo = hub.repos["owner/model"]
    assert repo.private
    assert repo.branches == {"main": commit}
    assert set(repo.commits[commit]) == {".gitattributes", *bundle_files()}
    expected = machine.run(PULL.replace("owner/model", str(EXPORT)).format(""))
    other = Machine(hub, tmp_path / "other")
    assert other.run(PULL.format(f"revision={commit!r}")) == expected
    stranger = Machine(hub, tmp_path / "stranger")
    assert stranger.run(PULL.format(f"token={TOKEN!r}"), HF_TOKEN="") == expected
    assert "BundleError: cannot fetch owner/model" in Machine(hub, tmp_path / "third").refused(PULL.format(""), HF_TOKEN="")


def test_the_card_says_what_the_hub_wants_to_know(hub: Hub, machine: Machine):
    commit = machine.run(PUSH.format("license='apache-2.0', datasets=['owner/reviews']"), EXPORT)
    card = ModelCard(hub.repos["owner/model"].commits[commit]["README.md"].decode())
    assert (card.data.license, card.data.datasets) == ("apache-2.0", ["owner/reviews"])
    assert (card.data.pipeline_tag, card.data.library_name) == ("text-classification", "reviewguard")
    assert 'Classifier.from_pretrained("owner/model")' in card.text
    assert machine.run(PULL.format(""))  # with the card changed, the hashes hold


def test_what_the_manifest_does_not_list_is_not_downloaded(hub: Hub, machine: Machine):
    hub.add("owner/model", {**bundle_files(), "adapter/adapter_model.safetensors": b"0" * 20_000, "notes.md": b"mine"})
    machine.run(PULL.format(""))
    assert hub.fetched("owner/model") == set(bundle_files())


def test_a_new_model_takes_away_the_old_ones_files_and_nobody_elses(hub: Hub, machine: Machine):
    files = bundle_files()
    old = {"head.safetensors": b"0" * 100, "adapter/adapter_model.safetensors": b"0" * 20_000}
    entries = {name: {"size": len(data), "sha256": "0" * 64} for name, data in old.items()}
    hub.add("owner/model", listing({**files, **old, "notes.md": b"mine"}, entries))
    commit = machine.run(PUSH.format(""), EXPORT)
    assert set(hub.repos["owner/model"].commits[commit]) == {"notes.md", *files}


def test_a_branch_is_made_and_main_stays(hub: Hub, machine: Machine):
    machine.run(PUSH.format("revision='onnx'"), EXPORT)
    repo = hub.repos["owner/model"]
    assert set(repo.branches) == {"main", "onnx"}
    assert set(repo.commits[repo.branches["main"]]) == {".gitattributes"}
    assert machine.run(PULL.format("revision='onnx'"))
    assert "does not contain a reviewguard model" in machine.refused(PULL.format(""))


@pytest.mark.parametrize(("method", "part"), [("PUT", "/large/"), ("POST", "/preupload/"), ("POST", "/commit/")])
def test_an_upload_that_fails_leaves_what_was_there(hub: Hub, machine: Machine, method: str, part: str):
    before = hub.add("owner/model", {"README.md": b"mine"})
    hub.fails = lambda asked, path: 403 if asked == method and part in path else None
    message = machine.refused(PUSH.format(""), EXPORT)
    assert message.startswith("HubError: cannot upload to owner/model")
    assert "hf auth login" in message
    assert hub.repos["owner/model"].branches == {"main": before}


@pytest.mark.parametrize("failure", ["cut", "drop", 403])
def test_a_download_that_fails_can_be_repeated(hub: Hub, machine: Machine, failure: str | int):
    hub.add("owner/model", bundle_files())
    hub.fails = lambda method, path: failure if method == "GET" and path.startswith("/large/") else None
    assert "BundleError: cannot fetch owner/model" in machine.refused(PULL.format(""))
    hub.fails = lambda method, path: None
    assert machine.run(PULL.format(""))


def test_offline_the_cache_is_enough_and_nothing_is_uploaded(hub: Hub, machine: Machine):
    commit = hub.add("owner/model", bundle_files())
    expected = machine.run(PULL.format(f"revision={commit!r}"))
    hub.requests.clear()
    assert machine.run(PULL.format(f"revision={commit!r}"), HF_HUB_OFFLINE="1") == expected
    assert "HubError: cannot upload" in machine.refused(PUSH.format(""), EXPORT, HF_HUB_OFFLINE="1")
    assert not hub.requests


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "onnx\\evil"])
def test_a_manifest_that_points_outside_is_refused_before_anything_is_fetched(hub: Hub, machine: Machine, name: str):
    files = bundle_files()
    hub.add("owner/model", listing(files, {name: {"size": 1, "sha256": "0" * 64}}))
    assert "not a plain path inside the folder" in machine.refused(PULL.format(""))
    assert hub.fetched("owner/model") == {MANIFEST}


def test_a_file_that_is_not_the_one_listed_is_refused(hub: Hub, machine: Machine):
    files = bundle_files()
    hub.add("owner/model", {**files, "config.json": files["config.json"] + b" "})
    assert machine.refused(PULL.format("")).startswith("IntegrityError")


def test_an_adapter_fetches_its_base_at_the_pinned_commit(hub: Hub, machine: Machine, tiny_encoder: Path, tmp_path: Path):
    base = {path.name: path.read_bytes() for path in tiny_encoder.iterdir() if path.is_file()}
    pinned = hub.add("owner/base", base)
    hub.add("owner/base", {**base, "model.safetensors": b"another model by now"})
    settings = f"encoder__repo='owner/base', encoder__revision={pinned!r}, encoder__max_length=32, loop__epochs=1"
    fit = f"Classifier('encoder', adapter='lora', {settings}).fit(['good', 'bad'] * 8, ['real', 'fake'] * 8)"
    machine.run(f"{fit}.push_to_hub('owner/model')")
    repo = hub.repos["owner/model"]
    pushed = repo.commits[repo.branches["main"]]
    assert "adapter/adapter_model.safetensors" in pushed
    assert not [name for name in pushed if name.startswith("encoder/")]
    hub.requests.clear()
    assert Machine(hub, tmp_path / "other").run(PULL.format(""))
    assert {path.split("/")[4] for _, path in hub.requests if path.startswith("/owner/base/resolve/")} == {pinned}


def test_the_page_about_it_holds(hub: Hub, machine: Machine, tmp_path: Path):
    """Its Python in one process, then its commands."""
    for folder in ("model", "exported"):
        shutil.copytree(EXPORT, tmp_path / folder)
    text = (ROOT / "docs" / "how-to" / "hub.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(python|console)\n(.*?)```", text, re.DOTALL)
    code = "\n".join(block for kind, block in blocks if kind == "python")
    machine.run(f"import os\nos.chdir({str(tmp_path)!r})\n{code}")
    commands = [line.removeprefix("$ ") for kind, block in blocks if kind == "console" for line in block.splitlines()]
    assert len(commands) > 1
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "reviewguard"
        machine.run(f"import os\nfrom reviewguard.cli import app as cli\nos.chdir({str(tmp_path)!r})\ncli.app({words[1:]!r})")
    assert set(hub.repos) == {"owner/reviews-detector"}


def test_the_example_runs(hub: Hub, machine: Machine):
    example = ROOT / "examples" / "hub.py"
    code = (
        f"import runpy\nsys.argv[1:] = [{str(EXPORT)!r}, 'owner/example']\nrunpy.run_path({str(example)!r}, run_name='__main__')"
    )
    said = machine.run(code)
    assert hub.repos["owner/example"].branches["main"] in said
    assert hub.repos["owner/example"].private


@pytest.mark.parametrize("name", ["model", "owner/model/x", "/tmp/model"])
def test_a_name_that_is_no_hub_id_is_refused(machine: Machine, name: str):
    assert "use the form owner/name" in machine.refused(PUSH.format("").replace("owner/model", name), EXPORT)
