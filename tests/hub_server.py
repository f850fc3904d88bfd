"""A small Hub over real HTTP: repositories with branches, commits and large files, and failures where a test wants them.

It speaks what huggingface_hub's own client speaks: https://huggingface.co/docs/hub/api, and git-lfs's batch API.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

#: Files from this size on go to large file storage, as weights do on the Hub.
LARGE = 10_000
TOKEN = "hf_of_the_owner"


@dataclass
class Repo:
    """Branches are names of commits; a commit is its files by path."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        listing = "".join(f"{name} {hashlib.sha1(data).hexdigest()}\n" for name, data in sorted(files.items()))
        oid = hashlib.sha1(f"{len(self.commits)} {listing}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the server holds, what was asked of it, and what it shall refuse.

    `fails` is asked with method and path before anything else: an HTTP status ends the request with it, "drop" closes the
    connection, and "cut" sends half of an answer.
    """

    url: str = ""
    store: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    fails: Callable[[str, str], int | str | None] = lambda method, path: None

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False) -> str:
        return self.repos.setdefault(name, Repo(private=private)).commit("main", files)

    def fetched(self, name: str) -> set[str]:
        """Files of a repository that were asked for."""
        start = f"/{name}/resolve/"
        return {path.removeprefix(start).partition("/")[2] for _, path in self.requests if path.startswith(start)}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at `url`, on this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        # The Hub keeps large files on another host, to which the client does not follow when it asks about them.
        hub.url, hub.store = f"http://127.0.0.1:{server.server_port}", f"http://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        failure = self.hub.fails(self.command, path)
        if failure == "drop":
            self.close_connection = True
        elif isinstance(failure, int):
            self._say(failure, {"error": "as the test wants it"})
        else:
            self._answer(path, body, cut=failure == "cut")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut

    def _answer(self, path: str, body: bytes, *, cut: bool) -> None:
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif parts[0] == "large":
            self._large(parts[1], body, cut=cut)
        else:
            name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2]).removesuffix(".git")
            repo = self.hub.repos.get(name)
            if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
                # As on the Hub: who may not see a repository does not learn that it exists.
                self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif parts[0] == "api":
                self._api(name, repo, parts[4], "/".join(parts[5:]), body)
            elif path.endswith("/info/lfs/objects/batch"):
                self._batch(json.loads(body))
            else:
                self._resolve(repo, parts[3], "/".join(parts[4:]), cut=cut)

    def _create(self, wanted: dict[str, Any]) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._say(401, {"error": "Invalid credentials"})
        name = f"{wanted.get('organization', 'owner')}/{wanted['name']}"
        if name in self.hub.repos:
            return self._say(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        self.hub.add(name, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
        return self._say(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _api(self, name: str, repo: Repo, verb: str, revision: str, body: bytes) -> None:
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._say(403, {"error": "Forbidden"})
        if verb == "branch":
            if revision in repo.branches:
                return self._say(409, {"error": "Reference already exists"})
            repo.branches[revision] = repo.branches["main"]
            return self._say(201)
        commit = repo.at(revision)
        if commit is None:
            return self._say(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        files = repo.commits[commit]
        if verb == "revision":
            siblings = [{"rfilename": path} for path in sorted(files)]
            return self._say(200, {"id": name, "sha": commit, "siblings": siblings, "private": repo.private})
        if verb == "tree":
            return self._say(200, [_entry(path, data) for path, data in sorted(files.items())])
        if verb == "preupload":
            wanted = json.loads(body)["files"]
            modes = [("lfs" if file["size"] >= LARGE else "regular", file["path"]) for file in wanted]
            return self._say(200, {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for mode, path in modes]})
        assert verb == "commit", verb
        return self._commit(name, repo, revision, dict(files), body)

    def _commit(self, name: str, repo: Repo, branch: str, files: dict[str, bytes], body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(branch, files)
        self._say(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = wanted["objects"]
        for one in objects:
            if one["oid"] not in self.hub.large:
                one["actions"] = {"upload": {"href": f"{self.hub.store}/large/{one['oid']}"}}
        self._say(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def _large(self, oid: str, body: bytes, *, cut: bool) -> None:
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == oid
            self.hub.large[oid] = body
            return self._say(200)
        data = self.hub.large[oid]
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        status = 206 if first else 200
        headers = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
        return self._send(status, data[first:], {"ETag": f'"{oid}"', **headers}, cut=cut)

    def _resolve(self, repo: Repo, revision: str, path: str, *, cut: bool) -> None:
        commit = repo.at(revision)
        if commit is None:
            return self._say(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        about = {"X-Repo-Commit": commit}
        data = repo.commits[commit].get(path)
        if data is None:
            return self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **about})
        if len(data) < LARGE:
            return self._send(200, data, {"ETag": f'"{_entry(path, data)["oid"]}"', **about}, cut=cut)
        # Large files are elsewhere, under the name of their content.
        oid = hashlib.sha256(data).hexdigest()
        self.hub.large[oid] = data
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data)), "Location": f"{self.hub.store}/large/{oid}"}
        return self._send(302, b"", {**about, **linked})


def _entry(path: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    large = (
        {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}} if len(data) >= LARGE else {}
    )
    return {"type": "file", "path": path, "size": len(data), "oid": oid, **large}
