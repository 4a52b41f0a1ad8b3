"""A loopback HTTPS server that imitates the API server for ConfigMaps and Leases."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

TOKEN = "a.service.account"
USER = "system:serviceaccount:ml:rollout"
PATHS = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>coordination\.k8s\.io)/v1)"
    r"/namespaces/(?P<namespace>[^/]+)/(?P<resource>configmaps|leases)(?:/(?P<name>[^/?]+))?$"
)
KINDS = {"configmaps": ("v1", "ConfigMap"), "leases": ("coordination.k8s.io/v1", "Lease")}
VERBS = {"GET": "get", "PATCH": "patch", "PUT": "update", "POST": "create"}


class Refusal(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


class ApiServer:
    """Context manager for a server of objects by (resource, namespace, name)."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.forbidden: set[tuple[str, str]] = set()
        """(verb, resource)"""
        self.token = TOKEN
        self.faults: list[Callable[[str, str], str | None]] = []
        """Faults. Each function gets every request (verb, resource) until it returns a fault once:
        `503`, `drop` (no answer) or `lose` (the request is done, but its answer is lost)."""
        self.before: dict[str, Callable[[], None]] = {}
        """Actions to run once, before the next request of a kind such as `patch configmaps`."""
        self.calls: list[tuple[str, str]] = []
        self._version = 100
        self._lock = threading.RLock()
        authority = trustme.CA()
        self.ca = folder / "ca.crt"
        authority.cert_pem.write_to_path(str(self.ca))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    def put(self, resource: str, namespace: str, name: str, **content: Any) -> None:
        api, kind = KINDS[resource]
        with self._lock:
            made = {"apiVersion": api, "kind": kind, "metadata": {}} | content
            made["metadata"] |= {"name": name, "namespace": namespace}
            self._store((resource, namespace, name), made)

    def change(self, name: str, key: str, text: str) -> None:
        """Change an object like another operator."""
        with self._lock:
            found = self.objects[("configmaps", "ml", name)]
            found["data"][key] = text
            self._store(("configmaps", "ml", name), found)

    def kubeconfig(self, path: Path, *, token: str = TOKEN) -> Path:
        """Write a kubeconfig file for this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [
                {
                    "name": "here",
                    "cluster": {
                        "server": f"https://127.0.0.1:{self.port}",
                        "certificate-authority": str(self.ca),
                    },
                }
            ],
            "users": [{"name": "me", "user": {"token": token}}],
        }
        path.write_text(json.dumps(config))
        return path

    def _store(self, at: tuple[str, str, str], content: dict[str, Any]) -> None:
        self._version += 1
        content["metadata"]["resourceVersion"] = str(self._version)
        self.objects[at] = content

    def answer(self, method: str, path: str, body: Any, token: str) -> dict[str, Any]:
        """Return the object, or raise a `Refusal`."""
        if token.lower() != f"bearer {self.token}".lower():
            raise Refusal(401, "Unauthorized", "Unauthorized")
        match = PATHS.match(path)
        if match is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        resource, namespace, name = match["resource"], match["namespace"], match["name"]
        verb, group = VERBS[method], match["group"] or ""
        if (verb, resource) in self.forbidden:
            raise Refusal(
                403,
                "Forbidden",
                f'{resource} "{name}" is forbidden: User "{USER}" cannot {verb} resource '
                f'"{resource}" in API group "{group}" in the namespace "{namespace}"',
            )
        with self._lock:
            if method == "POST":
                return self._create(resource, namespace, body)
            found = self.objects.get((resource, namespace, name))
            if found is None:
                raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
            if method == "GET":
                return found
            wanted = (body.get("metadata") or {}).get("resourceVersion")
            if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
                raise Refusal(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {resource} "{name}": the object has been '
                    "modified; please apply your changes to the latest version and try again",
                )
            if found.get("immutable") and "data" in body:
                raise Refusal(
                    422,
                    "Invalid",
                    f'ConfigMap "{name}" is invalid: data: Forbidden: field is immutable when '
                    "`immutable` is set",
                )
            made = _merged(found, body)
            self._store((resource, namespace, name), made)
            return made

    def _create(self, resource: str, namespace: str, body: Any) -> dict[str, Any]:
        at = (resource, namespace, body["metadata"]["name"])
        if at in self.objects:
            raise Refusal(409, "AlreadyExists", f'{resource} "{at[2]}" already exists')
        self._store(at, body)
        return body

    def fault(self, verb: str, resource: str) -> str | None:
        with self._lock:
            self.calls.append((verb, resource))
            if (first := self.before.pop(f"{verb} {resource}", None)) is not None:
                first()
            for number, each in enumerate(self.faults):
                if (word := each(verb, resource)) is not None:
                    del self.faults[number]
                    return word
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                resource = "leases" if "/leases" in self.path else "configmaps"
                fault = server.fault(VERBS[self.command], resource)
                if fault == "drop":
                    self.close_connection = True
                    return
                try:
                    if fault == "503":
                        raise Refusal(503, "ServiceUnavailable", "apiserver is shutting down")
                    token = self.headers.get("authorization") or ""
                    code, content = 200, server.answer(self.command, self.path, body, token)
                except Refusal as error:
                    code, content = error.code, error.status
                if fault == "lose":
                    self.close_connection = True
                    return
                data = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PATCH = do_PUT = do_POST = _serve

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _merged(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge as in RFC 7386, like a strategic merge of maps: None removes a key."""
    made = dict(old)
    for key, value in change.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            made[key] = _merged(made.get(key) or {}, value)
        else:
            made[key] = value
    return made
