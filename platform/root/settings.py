"""The platform's settings, read once and passed down. `docs/settings.md` lists every field; a test checks that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from hekla.platform.base.errors import FieldError, Invalid, Permanent

DataPlane = Literal["direct", "haproxy"]
Auth = Literal["off", "optional", "required"]


@dataclass(frozen=True)
class PlatformSettings:
    """Each field can be set by the variable `HEKLA_<FIELD>`, most by `hekla up --<field>` too; the option wins."""

    home: str = "~/.hekla"
    """Folder for the store, the model cache and the file that tells the CLI where the platform is."""

    host: str = "127.0.0.1"
    """Address the endpoint listens on. Loopback by default: until keys are set up, nobody else should reach it."""

    port: int = 8000
    """Port of the endpoint: the OpenAI API, the resource API and /metrics."""

    data_plane: DataPlane = "direct"
    """`direct`: each ingress replica listens on the port itself (SO_REUSEPORT), the faster way where measured.
    `haproxy`: Ray Serve's HAProxy listens on every interface and forwards to the replicas."""

    auth: Auth = "off"
    """Who may call: `required` asks every caller for an API key or token, `optional` lets callers without one use models as
    the tenant `anonymous`. Off by default because the default host is loopback."""

    jwt_issuer: str = ""
    """OIDC issuer whose tokens are taken for credentials besides API keys; empty: none."""

    jwt_audiences: str = ""
    """Audiences, with commas between; a token has to be for one of them. Empty: not checked."""

    jwt_jwks_url: str = ""
    """Where the issuer's keys are; empty: found by OIDC discovery."""

    jwt_tenant_claim: str = ""
    """Claim that names the tenant; empty: all tokens are of the tenant `default`."""

    jwt_user_claim: str = "sub"
    """Claim that names the user."""

    jwt_priority_claim: str = ""
    """Claim with the priority class; empty: the tenant's."""

    ingress_replicas: int = 2
    """Two, so that one can die without the endpoint going away."""

    ray_namespace: str = "hekla"
    """Ray namespace of the platform's actors; another one makes a second platform on the same cluster."""

    access_log: str = "stdout"
    """`stdout`, `stderr`, a file's path, or `off`."""

    access_log_format: Literal["text", "json"] = "text"

    body_bytes_max: int = 32 * 2**20
    """Largest request body: 32 MiB holds a million-token prompt and a few images."""

    routing_config: str = ""
    """Path of a `routing.yaml` with the ingress's own settings, there on every node that has a replica, and followed while
    it changes; empty: none."""

    drain_s: float = 30.0
    """How long an ingress replica finishes what it carries before it stops."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def endpoint(self) -> str:
        """URL by which this machine reaches the endpoint, also when it listens on every interface."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_open_to_others(self) -> bool:
        """Whether other machines can reach the endpoint. HAProxy listens on every interface, whatever `host` says."""
        return self.data_plane == "haproxy" or not _is_loopback(self.host)

    @property
    def home_path(self) -> Path:
        return Path(self.home).expanduser().absolute()

    @property
    def store_path(self) -> Path:
        return self.home_path / "store.db"

    @property
    def cache_path(self) -> Path:
        return self.home_path / "models"

    @property
    def serve_environment(self) -> dict[str, str]:
        """What every process of the cluster, and this one before it imports Ray Serve, needs for the data plane."""
        if self.data_plane == "direct":
            return {}
        return {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "hekla.platform.root.serve_shortcut:middlewares",
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)

    @classmethod
    def read(cls, environ: Mapping[str, str], **options: Any) -> Self:
        """Defaults, then `HEKLA_*` variables that are not empty, then options that are not None.

        Raises Invalid naming every bad one.
        """
        settings, problems = cls(), []
        for spec in fields(cls):
            raw = options.get(spec.name)
            source = f"--{spec.name.replace('_', '-')}"
            if raw is None:
                source = f"HEKLA_{spec.name.upper()}"
                raw = environ.get(source) or None
            if raw is None:
                continue
            try:
                settings = replace(settings, **{spec.name: _convert(spec.name, raw, getattr(settings, spec.name))})
            except ValueError as error:
                problems.append(FieldError(source, str(error)))
        if problems:
            raise Invalid.of("settings", problems)
        return settings


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


CHOICES: dict[str, tuple[str, ...]] = {
    "auth": ("off", "optional", "required"),
    "data_plane": ("direct", "haproxy"),
    "access_log_format": ("text", "json"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR"),
}
RANGES: dict[str, tuple[float, float]] = {
    "port": (1, 65535),
    "ingress_replicas": (1, 256),
    "body_bytes_max": (1024, 2**31),
    "drain_s": (0, 3600),
}


def _convert(name: str, raw: Any, default: Any) -> Any:
    if name in CHOICES and raw not in CHOICES[name]:
        raise ValueError(f"{raw!r} is not allowed; choose one of {', '.join(CHOICES[name])}")
    if not isinstance(default, int | float):
        if not str(raw):
            raise ValueError("is empty")
        return str(raw)
    try:
        value = type(default)(raw)
    except (TypeError, ValueError):
        raise ValueError(f"{raw!r} is not a number") from None
    low, high = RANGES[name]
    if not low <= value <= high:
        raise ValueError(f"{value} is out of range; allowed is {low:g} to {high:g}")
    return value


@dataclass(frozen=True)
class ClusterFile:
    """`cluster.json` in the home folder: what `hekla up` started, for the CLI, the SDK and `hekla down`."""

    endpoint: str
    ray_address: str
    ray_namespace: str
    cluster_id: str = ""
    """Set when `hekla up` started this Ray; empty when it joined one."""
    temp_dir: str = ""
    dashboard: str = ""

    def write(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        draft = home / "cluster.json.new"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(home / "cluster.json")

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """None when there is none. Raises Permanent when it is not what `write` writes."""
        file = home / "cluster.json"
        known = {spec.name for spec in fields(cls)}
        try:
            found = {name: value for name, value in json.loads(file.read_text()).items() if name in known}
            if not all(isinstance(value, str) for value in found.values()):
                raise TypeError("every value has to be a text")
            read = cls(**found)
            # `hekla down` removes this folder.
            if read.cluster_id and not Path(read.temp_dir).is_absolute():
                raise ValueError("temp_dir has to be an absolute path")
            return read
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError) as error:
            problem = f"{file} is not what `hekla up` writes ({error}); remove it if nothing of hekla runs here"
            raise Permanent(problem) from error

    @staticmethod
    def remove(home: Path) -> None:
        (home / "cluster.json").unlink(missing_ok=True)
