"""The Kubernetes API through its official client, with retries and one-line errors.

The client is imported at its first use, because it is an extra and takes a second to import.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from featurewire_rollout.errors import ConfigFileError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

CALL_SECONDS = (5.0, 10.0)
"""Timeouts to connect to the API server, and to read its answer."""
TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
"""Answers of an API server that is overloaded or restarting."""
RETRY_SECONDS = 0.5

T = TypeVar("T")


def open_api() -> ApiClient:
    """A client of the cluster that `kubectl` uses: kubeconfig, else the pod's service account.

    Raises `ConfigFileError`.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise ConfigFileError(
            "a ConfigMap needs the kubernetes package: "
            f"pip install 'featurewire-rollout[kubernetes]' ({error})"
        ) from error
    made = client.Configuration()
    made.retries = False  # `Kube` retries, because it knows which calls may be repeated
    named = os.environ.get("KUBECONFIG")
    # A container's user may lack a home.
    path = named or os.path.expanduser("~/.kube/config")
    try:
        if named or os.path.exists(path):
            load: Any = config.load_kube_config
            load(config_file=path, client_configuration=made, persist_config=False)
        else:
            load = config.load_incluster_config
            load(client_configuration=made)
    except config.ConfigException as error:
        where = path if named or os.path.exists(path) else f"no {path}, and not in a pod"
        raise ConfigFileError(
            f"no access to Kubernetes ({where}): {_one_line(error)}; set KUBECONFIG"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigFileError(f"no access to Kubernetes: {_one_line(error)}") from error
    return client.ApiClient(made)


def status_of(error: Exception) -> int | None:
    """The HTTP status of a refusal; None without an answer."""
    return getattr(error, "status", None) or None


class Kube:
    """Calls to the API server about one object."""

    def __init__(self, api: ApiClient, name: str, *, patience: float = 10.0) -> None:
        """`name` is the object's name in errors; `patience`: seconds of retries."""
        self.api = api
        self._name = name
        self._patience = patience

    def read(self, call: Callable[[], T], *, missing: str, until: float | None = None) -> T:
        """The result of `call`, which is retried after transient errors.

        `missing` is the advice after a 404; `until`: when to give up, on the monotonic clock.
        Raises `ConfigFileError`.
        """
        deadline = self.until() if until is None else until
        while True:
            try:
                return call()
            except Exception as error:
                if not self.is_transient(error) or time.monotonic() >= deadline:
                    raise self.explained("read", error, missing=missing) from error
            time.sleep(RETRY_SECONDS)

    def until(self) -> float:
        """When to give up a call that starts now, on the monotonic clock."""
        return time.monotonic() + self._patience

    def is_transient(self, error: Exception) -> bool:
        """Whether a retry may succeed. Raises `error` if it did not come from the API."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if isinstance(error, ApiException):
            return error.status in TRANSIENT_STATUSES
        if isinstance(error, HTTPError):
            return True
        raise error

    def explained(self, verb: str, error: Exception, *, missing: str = "") -> ConfigFileError:
        """The API server's error in one line, with advice."""
        status, host = status_of(error), self.api.configuration.host
        said = _message(error)
        if status is None:
            text = f"the API server at {host} does not answer: {said}"
        elif status == 401:
            text = (
                f"the API server at {host} does not accept the credentials (401): the token may "
                "have expired; log in again"
            )
        elif status == 403:
            text = f"{said} (403); grant it: docs/rollouts.md lists what is needed"
        elif status == 404:
            text = f"{said} (404); {missing}" if missing else f"{said} (404)"
        else:
            text = f"the API server at {host} says {status}: {said}"
        return ConfigFileError(f"cannot {verb} {self._name}: {text}")


def _message(error: Exception) -> str:
    """The message of the `Status` object in the answer, else the error in short."""
    body: Any = getattr(error, "body", None)
    try:
        return _one_line(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return _one_line(getattr(error, "reason", None) or error)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:500]
