"""A hub on 127.0.0.1 that speaks as much of the Hugging Face hub's HTTP as its client asks for.

Repositories are made, validated, written in one commit, and read again. Large files go the way of
LFS: a batch request, an upload to an address, a pointer in the commit. Who writes must show a
token; "forbidden" belongs to somebody else.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_test"
COMMIT = "c" * 40
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc0-1.0"}  # a few of those that the hub knows


class Hub:
    """What the stand-in holds. files: content by repository and name; private: repositories."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.uploads: dict[str, bytes] = {}
        self.cards: list[str] = []
        self.requests: list[str] = []
        self.endpoint = ""


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """A hub at `endpoint` for the time of the context."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.requests.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if "forbidden" in path or b"forbidden" in body[:200]:
            return self._answer(403, {"error": "You don't have the rights"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        _, _, _, user, name, action, _ = path.split("/")
        repository = f"{user}/{name}"
        if action == "preupload":
            return self._answer(200, {"files": [_mode(file) for file in json.loads(body)["files"]]})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
                self.hub.files[repository][value["path"]] = content
            elif line["key"] == "lfsFile":
                self.hub.files[repository][value["path"]] = self.hub.uploads[value["oid"]]
        url = f"{self.hub.endpoint}/{repository}/commit/{COMMIT}"
        return self._answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": url})

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rsplit("/", 1)[1]
        if hashlib.sha256(content).hexdigest() != oid:
            return self._answer(400, {"error": "another content"})
        self.hub.uploads[oid] = content
        return self._answer(200, {})

    def do_HEAD(self):
        self._read()

    def do_GET(self):
        self._read()

    def _read(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = self.hub.files.get(repository)
        if files is None:
            return self._answer(404, {"error": "Repository not found"}, "RepoNotFound")
        if "tree" in parts[4:]:
            return self._answer(
                200,
                [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ],
            )
        if parts[0] == "api":
            names = [{"rfilename": name} for name in files]
            return self._answer(200, {"id": repository, "sha": COMMIT, "siblings": names})
        return self._send(200, files["/".join(parts[4:])], "application/octet-stream")

    def _create(self, asked):
        repository = f"{asked['organization']}/{asked['name']}"
        if repository in self.hub.files:
            url = f"{self.hub.endpoint}/{repository}"
            return self._answer(409, {"error": "You already created this repo", "url": url})
        self.hub.files[repository] = {}
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(repository)
        return self._answer(200, {"url": f"{self.hub.endpoint}/{repository}"})

    def _validate(self, card):
        fields = yaml.safe_load(card.split("---\n")[1])
        self.hub.cards.append(card)
        if "license" in fields and fields["license"] not in LICENCES:
            return self._answer(400, {"errors": [{"message": '"license" must be one of [..]'}]})
        return self._answer(200, {"errors": [], "warnings": []})

    def _batch(self, asked):
        return self._answer(
            200,
            {
                "transfer": "basic",
                "objects": [
                    {
                        **part,
                        "actions": {
                            "upload": {"href": f"{self.hub.endpoint}/upload/{part['oid']}"}
                        },
                    }
                    for part in asked["objects"]
                ],
            },
        )

    def _answer(self, code, value, error=""):
        self._send(code, json.dumps(value).encode(), "application/json", error)

    def _send(self, code, content, kind, error=""):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _mode(file):
    large = file["path"].endswith((".safetensors", ".stablehlo", ".png"))
    return {
        "path": file["path"],
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
    }
