"""`hekla chat` against a small server that speaks OpenAI's streaming protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from hekla.platform.cli.app import app


class Model(BaseHTTPRequestHandler):
    """Answers with how many messages it was sent; knows one model."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)  # type: ignore[attr-defined]
        if body["model"] != "echo":
            error = {"error": {"message": f"no model {body['model']}", "type": "not_found", "code": "model_not_found"}}
            self._answer(404, "application/json", json.dumps(error))
            return
        pieces = [f"{len(body['messages'])} ", "messages"]
        chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in [*chunks, {"choices": []}]]
        self._answer(200, "text/event-stream", "".join(lines) + "data: [DONE]\n\n")

    def _answer(self, code: int, media_type: str, text: str) -> None:
        self.send_response(code)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def model() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.requests = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def chat(model: Any, *arguments: str, typed: str = "") -> Any:
    url = f"http://127.0.0.1:{model.server_address[1]}"
    return CliRunner().invoke(app, ["--server", url, "chat", *arguments], input=typed)


def test_a_prompt_gets_one_answer_with_the_options_given(model: Any) -> None:
    result = chat(model, "echo", "hi", "--system", "be brief", "--max-tokens", "5", "--temperature", "0")
    assert (result.exit_code, result.stdout) == (0, "2 messages\n")
    (request,) = model.requests
    assert (request["max_tokens"], request["temperature"], request["stream"]) == (5, 0.0, True)
    assert request["messages"][0] == {"role": "system", "content": "be brief"}


def test_a_dash_reads_the_prompt_from_standard_input(model: Any) -> None:
    chat(model, "echo", "-", typed="a long question")
    assert model.requests[0]["messages"] == [{"role": "user", "content": "a long question"}]


def test_a_conversation_remembers_until_it_is_reset(model: Any) -> None:
    result = chat(model, "echo", typed="one\ntwo\n\n/reset\nthree\n/exit\n")
    assert result.exit_code == 0
    assert [len(request["messages"]) for request in model.requests] == [1, 3, 1]
    assert model.requests[1]["messages"][1] == {"role": "assistant", "content": "1 messages"}


def test_the_end_of_input_ends_the_conversation(model: Any) -> None:
    assert chat(model, "echo", typed="one\n").exit_code == 0


def test_an_unknown_model_fails_in_one_line(model: Any) -> None:
    result = chat(model, "nobody", "hi")
    assert (result.exit_code, "no model nobody" in result.stderr) == (1, True)
    assert "Traceback" not in result.stderr


def test_a_failed_turn_leaves_the_conversation_going(model: Any) -> None:
    result = chat(model, "nobody", typed="one\n/exit\n")
    assert (result.exit_code, "no model nobody" in result.stderr) == (0, True)
