"""One line per request, written by a thread: the event loop only appends to a list, and never waits for a disk."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import msgspec

from hekla.platform.base.clock import rfc3339
from hekla.routing.config import AccessLogSettings
from hekla.routing.exchange import Exchange
from hekla.routing.metrics import backend_labels


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """One finished request. Times in integer milliseconds."""

    unix_s: float
    method: str
    path: str
    protocol: str
    status_code: int
    error_type: str
    error_message: str
    model_name: str
    model_route: str
    model_server: str
    selected_pod: str
    backend_type: str
    backend_name: str
    upstream_model: str
    upstream_status_code: int
    upstream_attempts: int
    request_id: str
    tenant: str
    user: str
    key_id: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    session: str
    queue_wait: int
    """Milliseconds until its turn."""
    continuations: int
    decision: int
    """Number of its latest decision in `/debug/decisions` of this replica; 0: none."""
    duration_total: int
    duration_request_processing: int
    duration_upstream_processing: int
    duration_response_processing: int

    @classmethod
    def of(cls, exchange: Exchange, unix_s: float, now_s: float) -> AccessRecord:
        route, kind, name, upstream_model = backend_labels(exchange)
        total, before, upstream, after = _timings(exchange, now_s)
        usage = exchange.usage
        return cls(
            unix_s=unix_s,
            method=exchange.method,
            path=exchange.path,
            protocol=f"HTTP/{exchange.scope.get('http_version', '1.1')}",
            status_code=exchange.status,
            error_type=exchange.error_kind,
            error_message=exchange.error_message,
            model_name=exchange.model,
            model_route=route,
            model_server=name if kind == "model_server" else "",
            selected_pod=exchange.backend,
            backend_type=kind,
            backend_name=name,
            upstream_model=upstream_model,
            upstream_status_code=exchange.upstream_status,
            upstream_attempts=exchange.upstream_attempts,
            request_id=exchange.request_id,
            tenant=exchange.caller.tenant,
            user=exchange.caller.user,
            key_id=exchange.caller.key_id,
            input_tokens=usage.prompt_tokens if usage else exchange.estimated_tokens,
            output_tokens=usage.completion_tokens if usage else 0,
            cached_tokens=usage.cached_tokens if usage else 0,
            session=exchange.match.session if exchange.match is not None else "",
            queue_wait=round((exchange.story.queue_wait_s or 0.0) * 1000),
            continuations=exchange.story.continuations,
            decision=exchange.story.decision,
            duration_total=total,
            duration_request_processing=before,
            duration_upstream_processing=upstream,
            duration_response_processing=after,
        )


def _timings(exchange: Exchange, now_s: float) -> tuple[int, int, int, int]:
    """Total, until sent upstream, until the first byte, and from there to the end; milliseconds."""
    started, sent, first = exchange.started_s, exchange.upstream_started_s, exchange.first_byte_s
    total = round((now_s - started) * 1000)
    if sent is None:
        return total, total, 0, 0
    before = round((sent - started) * 1000)
    upstream = round(((first if first is not None else now_s) - sent) * 1000)
    return total, before, upstream, max(total - before - upstream, 0)


def json_line(record: AccessRecord) -> str:
    """Empty values are left out, but never a status, a time or a token count."""
    line: dict[str, Any] = {"timestamp": rfc3339(record.unix_s)}
    for name in AccessRecord.__slots__:
        value = getattr(record, name)
        if name not in ("unix_s", "error_type", "error_message") and value != "":
            line[name] = value
    if record.error_type:
        line["error"] = {"type": record.error_type, "message": record.error_message}
    return msgspec.json.encode(line).decode() + "\n"


def text_line(record: AccessRecord) -> str:
    """`[time] "METHOD path PROTO" status k=v… tokens=in/out timings=Tms(a+b+c)`"""
    pairs = {
        "error": record.error_type and f"{record.error_type}:{_quoted(record.error_message)}",
        "model": _quoted(record.model_name),
        "route": record.model_route,
        "server": record.model_server,
        "pod": record.selected_pod,
        "upstream_model": _quoted(record.upstream_model),
        "upstream_status": str(record.upstream_status_code or ""),
        "attempts": str(record.upstream_attempts or ""),
        "request_id": record.request_id,
        "tenant": _quoted(record.tenant),
        "user": _quoted(record.user),
        "key": record.key_id,
        "session": _quoted(record.session),
        "queue": f"{record.queue_wait}ms" if record.queue_wait else "",
        "cached": str(record.cached_tokens or ""),
        "continued": str(record.continuations or ""),
        "decision": str(record.decision or ""),
    }
    shown = "".join(f" {name}={value}" for name, value in pairs.items() if value)
    parts = "+".join(
        str(ms)
        for ms in (
            record.duration_request_processing,
            record.duration_upstream_processing,
            record.duration_response_processing,
        )
    )
    return (
        f'[{rfc3339(record.unix_s)}] "{record.method} {_plain(record.path)} {record.protocol}" {record.status_code}{shown}'
        f" tokens={record.input_tokens}/{record.output_tokens} timings={record.duration_total}ms({parts})\n"
    )


def _plain(text: str) -> str:
    """No line breaks or control characters: a client must not forge log lines."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _quoted(text: str) -> str:
    plain = _plain(text)
    return '"' + plain.replace('"', "'") + '"' if " " in plain else plain


class AccessLog:
    """`record` never blocks; lines beyond `pending_lines_max` are dropped and counted."""

    def __init__(self, settings: AccessLogSettings, stream: TextIO | None = None) -> None:
        self._settings = settings
        self._line: Callable[[AccessRecord], str] = json_line if settings.format == "json" else text_line
        self._stream = stream
        self._pending: deque[AccessRecord] = deque()
        self._ended = threading.Event()
        self._writer: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        if self._settings.enabled and self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="access-log", daemon=True)
            self._writer.start()

    def use(self, settings: AccessLogSettings) -> None:
        """Other settings from the next line on, but for the output."""
        self._settings = settings
        self._line = json_line if settings.format == "json" else text_line
        self.start()

    @property
    def enabled(self) -> bool:
        return self._settings.enabled

    def record(self, record: AccessRecord) -> None:
        if len(self._pending) >= self._settings.pending_lines_max:
            self.dropped += 1
        else:
            self._pending.append(record)

    def stop(self) -> None:
        """Writes what is pending; may take as long as the output does."""
        self._ended.set()
        if self._writer is not None:
            self._writer.join(timeout=5.0)

    def _write_all(self) -> None:
        stream, is_own = self._open()
        try:
            while not self._ended.wait(self._settings.flush_interval_s):
                self._write_pending(stream)
            self._write_pending(stream)
        finally:
            if is_own:
                stream.close()

    def _write_pending(self, stream: TextIO) -> None:
        lines = [self._line(self._pending.popleft()) for _ in range(len(self._pending))]
        if lines:
            try:
                stream.write("".join(lines))
                stream.flush()
            except (OSError, ValueError):
                self.dropped += len(lines)

    def _open(self) -> tuple[TextIO, bool]:
        output = self._settings.output
        if self._stream is not None:
            return self._stream, False
        if output in ("stdout", "stderr"):
            return (sys.stdout if output == "stdout" else sys.stderr), False
        return open(output, "a", encoding="utf-8"), True
