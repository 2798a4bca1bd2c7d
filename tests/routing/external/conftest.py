"""Providers behind real TLS, and an ingress that knows them."""

from __future__ import annotations

import datetime
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hekla.platform.api.kinds.external_model_provider import CREDENTIAL_LABEL

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    day = datetime.timedelta(days=1)
    today = datetime.datetime.combine(datetime.date.today(), datetime.time())
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), today - day, today + 9 * day
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    folder: Path = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


class ProviderServer:
    """A provider's API; `answer` decides, and every request's headers and body are kept."""

    def __init__(self, handler: Handler) -> None:
        self.answer = handler
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self, tls: ssl.SSLContext) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.bodies.append(await request.read())
        return await self.answer(request)

    @property
    def json(self) -> Json:
        """The last request's body."""
        return dict(json.loads(self.bodies[-1]))


def sse(*events: Json | str) -> bytes:
    """Events as Anthropic writes them when they have a type, else as OpenAI does."""
    out = b""
    for event in events:
        if isinstance(event, str):
            out += b"data: " + event.encode() + b"\n\n"
        else:
            kind = b"event: " + event["type"].encode() + b"\n" if "type" in event else b""
            out += kind + b"data: " + json.dumps(event).encode() + b"\n\n"
    return out


async def answers(obj: Json, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(obj, status=status, headers=headers)


def provider(name: str, url: str, **spec: Any) -> Json:
    auth = {"auth": {"secretRef": {"name": "keys", "key": "api-key"}}}
    return {
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ExternalModelProvider",
        "metadata": {"name": name, "namespace": "default", "generation": 1},
        "spec": {"providerType": "OpenAI", "baseURL": url, "insecureSkipVerify": True, **auth, **spec},
    }


def secret(**values: str) -> Json:
    return {
        "apiVersion": "hekla.io/v1alpha1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": "default", "labels": {CREDENTIAL_LABEL: "true"}},
        "spec": {"type": "Opaque", "stringData": values or {"api-key": "sk-real"}},
    }


class Providers:
    """What test modules take from here; they can't import a conftest."""

    provider = staticmethod(provider)
    secret = staticmethod(secret)
    sse = staticmethod(sse)
    answers = staticmethod(answers)

    @staticmethod
    def rule(name: str = "p", **more: Any) -> list[Json]:
        return [{"targetModels": [{"externalModelProviderName": name}], **more}]

    @staticmethod
    def streams(*pieces: bytes) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
            await response.write_eof()
            return response

        return handle

    @staticmethod
    def replies(obj: Json, status: int = 200, **headers: str) -> Handler:
        async def handle(_request: web.Request) -> web.StreamResponse:
            return await answers(obj, status, **{name.replace("_", "-"): value for name, value in headers.items()})

        return handle


@pytest.fixture
def providers() -> Providers:
    return Providers()


@pytest_asyncio.fixture
async def start_provider(tls: ssl.SSLContext) -> AsyncIterator[Callable[..., Awaitable[ProviderServer]]]:
    servers: list[ProviderServer] = []

    async def start(handler: Handler | None = None) -> ProviderServer:
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        message = {"role": "assistant", "content": "hi"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt",
            "choices": [choice],
            "usage": usage,
        }
        server = ProviderServer(handler or Providers.replies(whole))
        await server.start(tls)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest_asyncio.fixture
async def external_site(start_site: Any, kit: Any) -> Any:
    """Starts an ingress whose model `m` is served by the provider `p`; more objects may be given."""

    async def start(url: str, *objects: Json, rules: Any = None, settings: Any = None, **spec: Any) -> Any:
        route = kit.model_route(rules=rules or Providers.rule())
        site = await start_site(route, provider("p", url, **spec), secret(), *objects, settings=settings)
        await kit.until(lambda: site.ingress.providers.is_read, "the providers have been read")
        return site

    return start
