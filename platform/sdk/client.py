"""The blocking client. `AsyncClient` is its twin; what to ask and how to read it lies in `calls` and `watching`."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import kind_named
from hekla.platform.base.errors import Unavailable
from hekla.platform.sdk.address import find_address, find_api_key
from hekla.platform.sdk.calls import (
    Call,
    Objects,
    Results,
    apply_call,
    apply_results,
    delete_call,
    events_about,
    get_call,
    list_call,
    log_call,
    patch_call,
    path_of,
    read_json,
    scale_call,
    selection,
)
from hekla.platform.sdk.connection import TIMEOUT_S, check, credential_headers, headers_of, unreachable
from hekla.platform.sdk.manifests import Manifests, objects_of
from hekla.platform.sdk.waiting import WAIT_TIMEOUT_S, OnProgress, Wait
from hekla.platform.sdk.watching import Change, Changes, WatchState, silence_allowed_s

if TYPE_CHECKING:
    from openai import OpenAI


class Client:
    """Talks to hekla's resource API and hands out an OpenAI client for its models.

    Methods raise the `ApiError` the server answered (NotFound, Conflict, Invalid …), or `Unavailable` when it can't
    be reached. Use as a context manager, or call `close`. Without an `api_key`, `HEKLA_API_KEY` is shown, or at the
    endpoint that `hekla up` started here, the key it left in its home.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        namespace: str = "default",
        timeout_s: float = TIMEOUT_S,
        api_key: str | None = None,
    ) -> None:
        self.base_url = find_address(base_url)
        self.namespace = namespace
        self._timeout_s = timeout_s
        self._api_key = find_api_key(self.base_url) if api_key is None else api_key
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout_s, headers=credential_headers(self._api_key))

    def apply(self, source: Manifests, *, dry_run: bool = False) -> Results:
        """Create or update objects, all or none. `source`: objects, a file or folder, or YAML text."""
        call = apply_call(objects_of(source), self.namespace, dry_run=dry_run)
        return apply_results(self.send(call))

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Json:
        return self.send(get_call(kind, namespace or self.namespace, name))

    def list(
        self,
        kind: str,
        *,
        labels: Mapping[str, str] | None = None,
        namespace: str | None = None,
        all_namespaces: bool = False,
    ) -> Objects:
        """Objects of a kind that carry all these labels, by namespace then name."""
        place = None if all_namespaces else namespace or self.namespace
        items: Objects = self.send(list_call(kind, place, labels))["items"]
        return items

    def watch(
        self,
        kind: str,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        namespace: str | None = None,
        all_namespaces: bool = False,
        timeout_s: float | None = None,
    ) -> Generator[Change, None, None]:
        """The objects there are (ADDED), then every change, for `timeout_s` seconds (None: for ever).

        Survives lost connections and restarts of the platform: it resumes, or lists again and yields the difference.
        """
        place = None if all_namespaces else namespace or self.namespace
        state = WatchState(path_of(kind_named(kind), place), selection(labels, name))
        for changes in self._changes(state, timeout_s):
            yield from changes

    def delete(self, kind: str, name: str, *, namespace: str | None = None) -> Json:
        """Delete an object and what it owns. Objects with finalizers go a little later: `wait_gone`."""
        return self.send(delete_call(kind, namespace or self.namespace, name))

    def patch(self, kind: str, name: str, changes: Json, *, namespace: str | None = None) -> Json:
        """Merge `changes` into the object (RFC 7386: null removes a field); returns the object."""
        return self.send(patch_call(kind, namespace or self.namespace, name, changes))

    def scale(self, kind: str, name: str, replicas: int, *, namespace: str | None = None) -> Json:
        """Set the replica count; returns the Scale object."""
        return self.send(scale_call(kind, namespace or self.namespace, name, replicas))

    def wait_ready(
        self,
        kind: str,
        name: str,
        timeout_s: float = WAIT_TIMEOUT_S,
        on_progress: OnProgress | None = None,
        *,
        namespace: str | None = None,
    ) -> Json:
        """Wait until the object is ready; returns it. Raises NotReady, quoting its condition, after `timeout_s`."""
        return self._wait(Wait(kind, namespace or self.namespace, name), timeout_s, on_progress)

    def wait_gone(
        self,
        kind: str,
        name: str,
        timeout_s: float = WAIT_TIMEOUT_S,
        *,
        namespace: str | None = None,
        uid: str = "",
    ) -> None:
        """Wait until the object and all it owned are gone. Raises NotReady, naming what remains, after `timeout_s`.

        `uid` is the object's, from before: without it, what an object owned can't be told once the object is gone.
        """
        self._wait(Wait(kind, namespace or self.namespace, name, gone=True, uid=uid), timeout_s, None)

    def events(self, kind: str | None = None, name: str | None = None, *, namespace: str | None = None) -> Objects:
        """Events about a kind or one object (or all of the namespace), oldest first."""
        return events_about(self.send(list_call("Event", namespace or self.namespace)), kind, name)

    def logs(
        self, engine: str, *, follow: bool = False, tail_lines: int | None = None, namespace: str | None = None
    ) -> Generator[str, None, None]:
        """An engine's log as pieces of text; with `follow` as it is written, until the engine is gone."""
        call = log_call(engine, namespace or self.namespace, follow=follow, tail_lines=tail_lines)
        with self._stream(call, silence_s=None) as response:
            yield from response.iter_text()

    def status(self) -> Json:
        """The cluster at a glance: `nodes`, `models`, `engines`, `totals`."""
        return self.send(Call("GET", "/hekla/v1/status"))

    def version(self) -> Json:
        """The server's version: `{"hekla": "0.1.0"}`."""
        return self.send(Call("GET", "/hekla/v1/version"))

    def openai(self, api_key: str = "") -> OpenAI:
        """The ordinary OpenAI client, pointed at this platform."""
        from openai import OpenAI

        return OpenAI(base_url=f"{self.base_url}/v1", api_key=api_key or self._api_key or "none")

    def send(self, call: Call) -> Json:
        """Send any call and read its JSON answer."""
        try:
            response = self._request(call)
        except httpx.TransportError as error:
            raise unreachable(self.base_url, error) from error
        return read_json(response.status_code, response.content, self.base_url)

    def _request(self, call: Call) -> httpx.Response:
        request = self._http.build_request(
            call.method, call.path, params=call.params, content=call.content, headers=headers_of(call)
        )
        try:
            return self._http.send(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # A kept connection whose server has gone meanwhile: a new one may reach its successor.
            if not call.is_repeatable:
                raise
            return self._http.send(request)

    @contextmanager
    def _stream(self, call: Call, silence_s: float | None) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(self._timeout_s, read=silence_s)
        try:
            with self._http.stream(call.method, call.path, params=call.params, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                check(response, self.base_url)
                yield response
        except httpx.TransportError as error:
            raise unreachable(self.base_url, error) from error

    def _changes(self, state: WatchState, timeout_s: float | None) -> Generator[Changes, None, None]:
        """What each line of the watch brings (often nothing), over as many connections as it takes."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (left_s := _left(deadline)) > 0:
            try:
                with self._stream(state.next_call(left_s), silence_allowed_s(left_s)) as response:
                    for line in response.iter_lines():
                        yield state.feed(line)
                        if _left(deadline) <= 0:
                            return
            except Unavailable as error:
                # A platform that restarts comes back; an address nobody ever listened at is a mistake to tell at once.
                if not state.was_connected and isinstance(error.__cause__, httpx.ConnectError):
                    raise
            time.sleep(min(state.ended(), max(0.0, _left(deadline))))

    def _wait(self, wait: Wait, timeout_s: float, on_progress: OnProgress | None) -> Json:
        state = wait.watch()
        with closing(self._changes(state, timeout_s)) as batches:
            for changes in batches:
                wait.feed(changes)
                if not state.is_caught_up:
                    continue
                if on_progress and (progress := wait.progress()) is not None:
                    on_progress(progress)
                if (outcome := wait.outcome()) is not None:
                    return outcome
        raise wait.timed_out(timeout_s)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.base_url!r}, namespace={self.namespace!r})"


def _left(deadline: float | None) -> float:
    """Seconds until the deadline, without end when there is none."""
    return inf if deadline is None else deadline - time.monotonic()
