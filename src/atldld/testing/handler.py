"""One connection to a server: requests in, answers out, with what goes wrong."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from .control import control
from .traffic import Fault, Subject
from .wire import Line, meant, spoilt, text

if TYPE_CHECKING:
    from .server import AllenServer


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    allen: AllenServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a request, with what goes wrong."""
        if self.path.startswith("/_testing/"):
            self._control(b"")
            return
        allen = self.allen
        leave = allen.log.enter()
        try:
            self._answer(leave)
        except OSError:
            self.close_connection = True
        finally:
            leave()

    def do_POST(self) -> None:
        """Answer a control request; the service itself is only asked by GET."""
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        if self.path.startswith("/_testing/"):
            self._control(body)
        else:
            self.send_error(405)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, leave: Callable[[], None]) -> None:
        allen, began = self.allen, time.monotonic()
        subject = Subject("other", self.path)
        fault: Fault | None = None
        waits = allen.latency
        try:
            subject, make = allen.routes.respond(self.path)
            hits = allen.faults.draw(subject)
            waits += sum(hit.seconds or 0.0 for hit in hits if hit.kind == "latency")
            fault = next((hit for hit in hits if hit.kind != "latency"), None)
            named = fault.kind if fault is not None else "latency" if hits else None
            answer = make(fault)
            if fault is not None:
                answer = spoilt(answer, fault)
        except Exception:
            named = None
            allen.errors.append(traceback.format_exc())
            answer = text(500, allen.errors[-1])
        left = waits - (time.monotonic() - began)
        if left > 0:
            allen.closing.wait(left)
        silent = fault is not None and fault.kind in ("hang", "drop")
        planned = meant(answer, fault)
        place = allen.log.write(subject, 0 if silent else answer.status, planned, named)
        line = Line(self.connection, allen.closing, not self.close_connection, leave)
        try:
            line.send(answer, fault)
        finally:
            if line.sent != planned:
                allen.log.correct(place, line.sent)
            if not line.keep_alive:
                self.close_connection = True

    def _control(self, body: bytes) -> None:
        answer = control(self.allen, self.path, body)
        line = Line(self.connection, self.allen.closing, not self.close_connection, lambda: None)
        try:
            line.send(answer, None)
        except OSError:
            self.close_connection = True
