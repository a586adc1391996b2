"""A server in a process of its own."""

from __future__ import annotations

import http.client
import json
import pickle
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, Self

from .log import Request
from .served import Served
from .traffic import Fault


class SpawnedServer:
    """An `AllenServer` in another process, with its names for log, faults and preparation.

    The process ends when this is closed, and when the process that began it ends.

    Parameters
    ----------
    sources
        What to serve; is pickled.
    options
        Keyword arguments of `AllenServer`; are pickled.
    """

    def __init__(self, sources: list[Served], options: dict[str, Any]) -> None:
        self._given = pickle.dumps((sources, options))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "atldld.testing", "--from-stdin"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process has no pipes")
        process.stdin.write(len(self._given).to_bytes(8, "big") + self._given)
        process.stdin.flush()
        self.url = process.stdout.readline().decode().strip()
        if not self.url:
            self.close()
            raise RuntimeError("the server did not start; what it said is on standard error")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def requests(self) -> list[Request]:
        """Everything answered so far."""
        return [Request.from_json(values) for values in self._control("log")["requests"]]

    @property
    def image_requests(self) -> list[Request]:
        """The requests for bodies of images, without the redirects that led to them."""
        return [request for request in self.requests if request.kind == "image"]

    @property
    def connections_high_water(self) -> int:
        """The most requests that were being served at one time."""
        return int(self._control("log")["connections_high_water"])

    @property
    def errors(self) -> list[str]:
        """What went wrong in the server itself."""
        return list(self._control("log")["errors"])

    def reset_log(self) -> None:
        """Forget all requests, and begin the high water anew."""
        self._control("reset", {})

    def add_fault(self, fault: Fault) -> None:
        """Let something go wrong from now on."""
        self._control("fault", fault.to_json())

    def clear_faults(self) -> None:
        """Let all go well from now on."""
        self._control("clear-faults", {})

    def prepare(
        self,
        view: str = "image",
        tiers: int | Iterable[int] | None = None,
        image_ids: Iterable[int] | None = None,
    ) -> int:
        """Encode whole images beforehand; returns how many bytes they have."""
        wanted = {
            "view": view,
            "tiers": tiers if tiers is None or isinstance(tiers, int) else list(tiers),
            "image_ids": None if image_ids is None else list(image_ids),
        }
        return int(self._control("prepare", wanted)["bytes"])

    def _control(self, what: str, given: dict[str, Any] | None = None) -> Any:
        if not self.url:
            raise RuntimeError("the server is not running; enter it with `with`")
        # Plain HTTP to loopback: no proxy of the environment may come between.
        host = self.url.removeprefix("http://").partition("/")[0]
        connection = http.client.HTTPConnection(host)
        try:
            body = None if given is None else json.dumps(given)
            connection.request("GET" if body is None else "POST", f"/_testing/{what}", body)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"the server refused {what!r}: {content}")
        return content
