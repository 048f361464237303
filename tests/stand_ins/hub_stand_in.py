"""A tiny Hugging Face hub on this machine: the addresses that ``huggingface_hub`` asks for."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+?)(?:/(?P<kind>revision|tree)/(?P<rev>.+))?")
PUSH = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<kind>preupload|commit)/main")
FILE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<name>.+)")


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass
class Hub:
    """What the hub serves, and what was asked of it."""

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Files by model id and revision; commits are told from what they hold."""
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and headers by model id."""
    cut: dict[str, int] = field(default_factory=dict)
    """How many answers for a file break off in their middle."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, file, and range of each request for a file."""
    address: str = ""
    token: str = "hf_may_write"
    """What may upload."""
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files that were uploaded, by digest."""

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        revisions = self.repos[name]
        by_commit = {commit(files): files for files in revisions.values()}
        return revisions.get(revision, by_commit.get(revision))

    def fetched(self) -> list[str]:
        return [name for method, name, _ in self.asked if method == "GET"]


def commit(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for name, content in files.items():
        digest.update(name.encode() + content)
    return digest.hexdigest()


@contextmanager
def serve(hub: Hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            api, file = API.fullmatch(path), FILE.fullmatch(path)
            found = api or file
            if not found or found["id"] not in {*hub.repos, *hub.refusals}:
                return self.answer(404, {"X-Error-Code": "RepoNotFound"})
            if found["id"] in hub.refusals:
                return self.answer(*hub.refusals[found["id"]])
            files = hub.files(found["id"], found["rev"] or "main")
            if files is None:
                return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            return self.describe(api, files) if api else self.send_file(file["name"], files)

        def do_POST(self):
            path = unquote(urlsplit(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if path == "/api/validate-yaml":
                return self.reply({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.answer(401, {}, b"{}")
            if path == "/api/repos/create":
                told = json.loads(body)
                name = f"{told.get('organization') or 'me'}/{told['name']}"
                if name in hub.refusals:
                    return self.answer(*hub.refusals[name])
                if name in hub.repos:
                    return self.reply({"url": f"{hub.address}/{name}"}, 409)
                hub.repos[name] = {"main": {}}
                hub.private[name] = told.get("private", told.get("visibility") == "private")
                return self.reply({"url": f"{hub.address}/{name}"})
            found = PUSH.fullmatch(path)
            if found and found["kind"] == "preupload":
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
                return self.reply({"files": modes})
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {**each, "actions": {"upload": {"href": f"{hub.address}/lfs/{each['oid']}"}}}
                    for each in json.loads(body)["objects"]
                ]
                return self.reply({"transfer": "basic", "objects": objects})
            if found and found["kind"] == "commit":
                return self.commit(found["id"], [json.loads(x) for x in body.splitlines()])
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hub.cut.get("upload", 0):
                hub.cut["upload"] -= 1
                self.close_connection = True
                return self.connection.close()
            hub.objects[hashlib.sha256(body).hexdigest()] = body
            return self.answer(200, {})

        def commit(self, name, lines):
            added = {}
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    added[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    added[value["path"]] = hub.objects[value["oid"]]
            files = {**hub.repos[name]["main"], **added}
            hub.repos[name]["main"] = files
            address = f"{hub.address}/{name}/commit/{commit(files)}"
            return self.reply({"commitUrl": address, "commitOid": commit(files)})

        def reply(self, told, status=200):
            body = json.dumps(told).encode()
            return self.answer(status, {"Content-Type": "application/json"}, body)

        def describe(self, found, files):
            if found["kind"] == "tree":
                told = [
                    {"type": "file", "path": n, "size": len(c), "oid": tag(c)}
                    for n, c in files.items()
                ]
            else:
                siblings = [{"rfilename": n, "size": len(c)} for n, c in files.items()]
                told = {"id": found["id"], "sha": commit(files), "siblings": siblings}
            body = json.dumps(told).encode()
            return self.answer(200, {"Content-Type": "application/json"}, body)

        def send_file(self, name, files):
            hub.asked.append((self.command, name, self.headers.get("Range", "")))
            if name not in files:
                return self.answer(404, {"X-Error-Code": "EntryNotFound"})
            content, status = files[name], 200
            headers = {"ETag": f'"{tag(content)}"', "X-Repo-Commit": commit(files)}
            part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if part:
                start, status = int(part[1]), 206
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                content = content[start:]
            is_cut = self.command == "GET" and hub.cut.get(name, 0) > 0
            if is_cut:
                hub.cut[name] -= 1
            return self.answer(status, headers, content, is_cut)

        def answer(self, status, headers, body=b"", is_cut=False):
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if is_cut else body)
            self.close_connection = is_cut

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
