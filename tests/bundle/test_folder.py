import hashlib
import json
import os
import threading
from pathlib import Path

import msgspec
import pytest
from manifests import PLAIN

from reviewguard.bundle.folder import is_bundle, open_bundle, write_bundle
from reviewguard.bundle.manifest import FORMAT_VERSION, MANIFEST
from reviewguard.errors import BundleError, FormatVersionError, IntegrityError
from reviewguard.files import sha256

FILES = {"config.json": b"{}", "head.safetensors": bytes(range(256)), "encoder/model.safetensors": b"weights", "empty": b""}


@pytest.fixture
def model(tmp_path) -> Path:
    write_bundle(tmp_path / "model", PLAIN, FILES)
    return tmp_path / "model"


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _content(folder: Path) -> dict[str, bytes]:
    bundle = open_bundle(folder)
    return {name: bundle.read(name) for name in bundle.manifest.files}


def _recorded_progress(model: Path) -> list[str]:
    return sorted(path.name for path in model.parent.iterdir() if path != model)


def _rewrite(model: Path, **changes) -> None:
    manifest = json.loads((model / MANIFEST).read_bytes())
    (model / MANIFEST).write_text(json.dumps(manifest | changes))


def test_round_trip(model):
    bundle = open_bundle(model)
    assert bundle.folder == model
    assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES
    assert msgspec.structs.replace(bundle.manifest, files={}) == PLAIN
    for name, content in FILES.items():
        assert (bundle.manifest.files[name].size, bundle.manifest.files[name].sha256) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )
    assert _tree(model) == FILES | {MANIFEST: (model / MANIFEST).read_bytes()}
    assert is_bundle(model)
    assert _recorded_progress(model) == []


def test_files_may_be_copied_from_paths(tmp_path):
    source = tmp_path / "weights"
    source.write_bytes(os.urandom(3 * 2**20 + 1))
    write_bundle(tmp_path / "deep" / "model", PLAIN, {"a/b/weights": source, "bytes": b"x"})
    assert _content(tmp_path / "deep" / "model") == {"a/b/weights": source.read_bytes(), "bytes": b"x"}
    assert sha256(source) == hashlib.sha256(source.read_bytes()).hexdigest()


def test_relative_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("model"), PLAIN, FILES)
    assert _content(tmp_path / "model") == _content(Path("model")) == FILES


def test_the_bundle_lists_its_names(model):
    bundle = open_bundle(model)
    assert "head.safetensors" in bundle
    assert "baseline.json" not in bundle
    assert bundle.path("config.json") == model / "config.json"
    with pytest.raises(BundleError, match=r"no baseline\.json; it holds .*config\.json.*head\.safetensors"):
        bundle.read("baseline.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
def test_manifest_is_written_last(model):
    # The writer blocks on the alphabetically last file, which is a pipe, until the folder has been inspected.
    pipe, staging = model.parent / "pipe", model.parent / ".model.new"
    os.mkfifo(pipe)
    thread = threading.Thread(target=write_bundle, args=(model, PLAIN, {"a": b"1", "zzz": pipe}))
    thread.start()
    with open(pipe, "wb") as end:
        assert set(_tree(staging)) == {"a", "zzz"}
        assert _content(model) == FILES
        end.write(b"2")
    thread.join()
    assert _content(model) == {"a": b"1", "zzz": b"2"}


def test_overwriting_replaces_all_files(model):
    write_bundle(model, msgspec.structs.replace(PLAIN, head="mlp"), {"head.safetensors": b"new"})
    assert _content(model) == {"head.safetensors": b"new"}
    assert set(_tree(model)) == {MANIFEST, "head.safetensors"}
    assert open_bundle(model).manifest.head == "mlp"
    assert _recorded_progress(model) == []


def test_a_foreign_file_inside_a_bundle_is_not_lost(model):
    (model / ".git").mkdir()
    (model / ".git" / "HEAD").write_text("precious")
    with pytest.raises(BundleError, match=r"such as '\.git/HEAD'"):
        write_bundle(model, PLAIN, {"new": b"1"})
    assert _content(model) == FILES
    assert (model / ".git" / "HEAD").read_text() == "precious"


def test_a_bundle_that_was_replaced_since_it_was_opened_is_not_mixed(model):
    bundle = open_bundle(model)
    write_bundle(model, PLAIN, {name: content + b"2" for name, content in FILES.items()})
    with pytest.raises(IntegrityError, match="changed on disk since this model was loaded"):
        write_bundle(model.parent / "copy", bundle.manifest, {name: bundle.path(name) for name in bundle.manifest.files})
    assert not (model.parent / "copy").exists()


@pytest.mark.timeout(20)
def test_an_endless_file_is_refused_and_not_read(model):
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/dev/zero")
    with pytest.raises(IntegrityError, match=r"config\.json"):
        open_bundle(model)


@pytest.mark.parametrize("values", [{"classes": ["a", "a"]}, {"positive": "none of them"}, {"label_type": "int"}])
def test_classes_that_contradict_themselves_are_refused(model, values):
    _rewrite(model, **values)
    with pytest.raises(BundleError, match=r"malformed: (classes|a class)"):
        open_bundle(model)


def test_a_bundle_may_be_written_over_itself(model):
    bundle = open_bundle(model)
    write_bundle(model, bundle.manifest, {name: bundle.path(name) for name in bundle.manifest.files})
    assert _content(model) == FILES


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()
    write_bundle(tmp_path / "model", PLAIN, FILES)
    assert _content(tmp_path / "model") == FILES
    assert _recorded_progress(tmp_path / "model") == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_foreign_files_are_not_changed(tmp_path, kind):
    target = tmp_path / "mine"
    precious = target / "thesis.tex" if kind == "folder" else target
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    with pytest.raises(
        BundleError, match=r"mine exists and contains files that are not part of a reviewguard model.*not changed.*another folder"
    ):
        write_bundle(target, PLAIN, FILES)
    assert precious.read_text() == "precious"
    assert list(tmp_path.rglob("*")) == ([target, precious] if kind == "folder" else [target])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("head.safetensors", bytes(range(255)) + b"\0", "sha256"),
        ("head.safetensors", bytes(range(255)), "expected 256 bytes.*got 255 bytes"),
        ("head.safetensors", bytes(range(256)) + b"\0", "expected 256 bytes.*got 257 bytes"),
        ("encoder/model.safetensors", None, "cannot be read"),
        ("empty", b"x", "expected 0 bytes"),
    ],
    ids=["flipped", "truncated", "grown", "missing", "filled"],
)
def test_altered_files_are_refused(model, name, content, message):
    if content is None:
        (model / name).unlink()
    else:
        (model / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"{name}.*{message}.*again"):
        open_bundle(model)


def test_a_folder_instead_of_a_file_is_refused(model):
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    with pytest.raises(IntegrityError, match=r"config\.json"):
        open_bundle(model)


@pytest.mark.parametrize("size", [0, 1, 2, -1])
@pytest.mark.parametrize("digest", ["", "0" * 64, hashlib.sha256(b"{}").hexdigest().upper()])
def test_wrong_entries_are_refused(model, size, digest):
    _rewrite(model, files={"config.json": {"size": size, "sha256": digest}})
    with pytest.raises(IntegrityError, match=r"config\.json"):
        open_bundle(model)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None])
def test_other_formats_are_refused_with_the_command(model, version):
    _rewrite(model, format_version=version, something="new")
    with pytest.raises(FormatVersionError, match=rf"{version!r}.*reads formats 1 to 2.*pip install --upgrade reviewguard"):
        open_bundle(model)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'{"format_version": 1',
        b"\xff\xfe",
        b'{"format_version": 1, "head": "\xff"}',
        b'{"format_version": 1, "recipe": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"format_version": true}',
        b'{"format_version": 1}',
    ],
    ids=["empty", "null", "array", "cut off", "not text", "not UTF-8", "deep", "boolean version", "fields missing"],
)
def test_malformed_manifests_are_refused(model, raw):
    (model / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError, match=r"reviewguard\.json is malformed"):
        open_bundle(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", ["fake"]),
        ("classes", "fake"),
        ("normalization", "no such"),
        ("max_length", 0),
        ("files", {"a": 1}),
        ("head", None),
    ],
)
def test_manifests_with_wrong_values_are_refused(model, key, value):
    _rewrite(model, **{key: value})
    with pytest.raises(BundleError, match=rf"malformed: .*{key}"):
        open_bundle(model)


def test_a_huge_manifest_is_not_read(model):
    with open(model / MANIFEST, "r+b") as file:
        file.truncate(2**40)  # a sparse file, which takes no space
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(model)


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be made on Windows")
@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "a/..", "/etc/x", "a\\b", "C:x", "", ".", "..", MANIFEST, f"./{MANIFEST}", "a\0b", "x" * 5000]
)
def test_names_outside_the_folder_are_refused(model, name):
    # Names with a backslash or a colon lead elsewhere on other systems; here, they could be files.
    for place in (model / "x", model.parent / "x", model / "a\\b", model / "C:x"):
        place.write_bytes(b"{}")
    _rewrite(model, files={name: {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}})
    with pytest.raises(BundleError) as caught:
        open_bundle(model)
    assert str(model) in str(caught.value)


@pytest.mark.parametrize("kind", ["nothing", "file", "empty folder"])
def test_folders_without_a_bundle_are_refused(tmp_path, kind):
    path = tmp_path / "model"
    if kind == "file":
        path.write_text("x")
    if kind == "empty folder":
        path.mkdir()
    assert not is_bundle(path)
    with pytest.raises(BundleError, match=r"model does not hold a reviewguard model: cannot read reviewguard\.json"):
        open_bundle(path)


def test_a_bundle_set_aside_is_opened_and_recovered(model):
    # The state after an interruption between the two renames of `write_bundle`.
    aside, staging = model.parent / ".model.old", model.parent / ".model.new"
    model.rename(aside)
    staging.mkdir()
    (staging / "half").write_bytes(b"written")
    assert is_bundle(model)
    assert _content(model) == FILES
    write_bundle(model, PLAIN, {"new": b"1"})
    assert _content(model) == {"new": b"1"}
    assert _recorded_progress(model) == []


def test_a_bundle_set_aside_is_restored_if_the_next_write_fails(model, tmp_path):
    model.rename(model.parent / ".model.old")
    with pytest.raises(BundleError, match="cannot write"):
        write_bundle(model, PLAIN, {"a": tmp_path / "gone"})
    assert _content(model) == FILES


def test_a_bundle_opened_where_it_was_set_aside_can_be_written_back(model):
    model.rename(model.parent / ".model.old")
    bundle = open_bundle(model)
    write_bundle(model, bundle.manifest, {name: bundle.path(name) for name in bundle.manifest.files})
    assert _content(model) == FILES
    assert _recorded_progress(model) == []


def test_leftovers_next_to_a_complete_bundle_are_removed(model):
    for name in (".model.old", ".model.new"):
        (model.parent / name / "sub").mkdir(parents=True)
        (model.parent / name / "sub" / "stale").write_bytes(b"x")
    assert _content(model) == FILES
    write_bundle(model, PLAIN, {"new": b"1"})
    assert _content(model) == {"new": b"1"}
    assert set(_tree(model)) == {MANIFEST, "new"}
    assert _recorded_progress(model) == []


def test_a_failed_write_changes_nothing(model, tmp_path):
    with pytest.raises(BundleError, match=r"cannot write .*model.*gone"):
        write_bundle(model, PLAIN, {"a": b"1", "b": tmp_path / "gone"})
    assert _content(model) == FILES
    assert _recorded_progress(model) == []


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="cannot write"):
        write_bundle(tmp_path / "file" / "model", PLAIN, FILES)


@pytest.mark.skipif(os.name == "nt", reason="links need privileges on Windows")
def test_writing_through_a_link_replaces_what_it_points_to(model):
    link = model.parent / "current"
    link.symlink_to(model)
    for content in (b"1", b"2"):
        write_bundle(link, PLAIN, {"new": content})
        assert _content(link) == {"new": content}
    assert link.is_symlink()
    assert _content(model) == {"new": b"2"}


def test_writers_take_turns(model):
    failed = []

    def write(content: bytes) -> None:
        try:
            for _ in range(5):
                write_bundle(model, PLAIN, {"a": content, "b": content})
        except BundleError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(bytes([n]) * 5000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = _content(model)
    assert not failed
    assert content["a"] == content["b"]
    assert _recorded_progress(model) == []
