"""Fixtures that more than one suite uses. The Ray cluster is started once, and only when a test asks for it."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest
import yaml

from hekla.platform.base.errors import HeklaError, NotFound
from hekla.platform.root.ray_processes import RayHead, start_local_ray, stop_local_ray
from hekla.platform.sdk import Client

ROOT = Path(__file__).parent.parent
WORDS = [
    "river",
    "mountain",
    "copper",
    "violin",
    "harvest",
    "lantern",
    "orchard",
    "meadow",
    "thunder",
    "canvas",
    "pepper",
    "harbor",
    "marble",
    "winter",
]
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "120",
}
# Ray reads some of them when it is imported, so they are set before any test module is.
os.environ.update(RAY_ENVIRONMENT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first; then those that want the Ray cluster to themselves, a live platform on it, real vLLM."""

    def cost(item: pytest.Item) -> int:
        fixtures = getattr(item, "fixturenames", ())
        stages = (
            item.get_closest_marker("ray") is not None,
            "live" in fixtures,
            item.get_closest_marker("vllm") is not None,
            "vllm_model" in fixtures,
            "vllm_pair" in fixtures,
        )
        return sum(1 << place for place, reached in enumerate(stages) if reached)

    items.sort(key=cost)


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """The run's one Ray cluster, in processes of its own. Its GPUs are only numbers: nobody looks for devices."""
    home = tmp_path_factory.mktemp("ray")
    head = start_local_ray(
        home, num_cpus=4, num_gpus=2, object_store_bytes=100 << 20, dashboard=True, env=RAY_ENVIRONMENT
    )
    try:
        yield head
    finally:
        assert stop_local_ray(head.cluster_id, head.temp_dir) == []


@pytest.fixture(scope="session")
def ray_session(ray_head: RayHead) -> Iterator[str]:
    """This process as a driver of the run's cluster; yields its address."""
    import ray

    from hekla.platform.cluster.ray_private import allow_loopback

    allow_loopback(ray_head.address)
    ray.init(address=ray_head.address, namespace="hekla", log_to_driver=False, configure_logging=False)
    try:
        yield ray_head.address
    finally:
        ray.shutdown()


class Live:
    """A whole platform under test, brought up by the CLI on the run's one Ray cluster."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.endpoint = endpoint
        self.home = home
        self.client = Client(endpoint)

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Wait for a condition; a refused connection counts as not yet."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError, HeklaError):
                if holds():
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.story()}")
            time.sleep(0.05)

    def story(self) -> str:
        """What the platform says of itself, for a failed wait."""
        with contextlib.suppress(httpx.TransportError, HeklaError):
            return json.dumps(self.client.status(), indent=1)[:6000]
        return "(the platform does not answer)"

    @contextlib.contextmanager
    def serving(self, name: str, *, wait: bool = True, **wishes: Any) -> Iterator[Served]:
        """A ModelBooster with simulated engines, gone again at the end."""
        self.client.apply([simulated(name, **wishes)])
        try:
            if wait:
                self.client.wait_ready("ModelBooster", name, timeout_s=90)
                self.until(lambda: name in self.model_names(), "the ingress knows the route")
            yield Served(name, name, self)
        finally:
            with contextlib.suppress(NotFound):
                self.client.delete("ModelBooster", name)
            self.until(lambda: not self.engines_of(name), "its engines are gone")

    def engines_of(self, name: str) -> list[Any]:
        return [engine for engine in self.client.list("Engine") if engine["spec"]["serving"].startswith(f"{name}-")]

    def model_names(self) -> list[str]:
        return [model["id"] for model in httpx.get(f"{self.endpoint}/v1/models", timeout=10).json()["data"]]

    def platform_pid(self) -> int:
        return int(self.client.status()["platform"]["pid"])

    def ingress_pids(self) -> set[int]:
        """Processes that listen on the endpoint's port."""
        port = int(self.endpoint.rsplit(":", 1)[1])
        connections = psutil.net_connections("tcp")
        return {
            c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid
        }


@dataclass(frozen=True)
class Served:
    name: str
    model: str
    live: Live

    def engines(self) -> list[str]:
        """Addresses of the ready engines."""
        found = self.live.engines_of(self.name)
        return [engine["status"]["address"] for engine in found if engine["status"]["phase"] == "Ready"]


def simulated(
    name: str, *, replicas: int = 1, config: dict[str, str] | None = None, resources: dict[str, str] | None = None,
    disaggregated: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A ModelBooster of simulated engines at zero think time unless `config` says otherwise."""
    worker: dict[str, Any] = {
        "replicas": 1,
        "pods": 1,
        "resources": {"requests": resources or {"cpu": "100m"}},
        "config": {"time-scale": "0"} | (config or {}),
    }
    workers = [{"type": "server"} | worker]
    if disaggregated:
        transfer = {"kv-transfer-config": json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"})}
        workers = [{"type": role} | worker | {"config": worker["config"] | transfer} for role in ("prefill", "decode")]
    return {
        "apiVersion": "workload.serving.volcano.sh/v1alpha1",
        "kind": "ModelBooster",
        "metadata": {"name": name},
        "spec": {
            "name": name,
            "backend": {
                "name": "engine",
                "type": "SimulatedDisaggregated" if disaggregated else "Simulated",
                "modelURI": f"hf://simulated/{name}",
                "replicas": replicas,
                "workers": workers,
            },
        },
    }


@pytest.fixture(scope="session")
def live(ray_head: RayHead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A platform of its own on the run's cluster, up as long as tests want it."""
    home = tmp_path_factory.mktemp("home")
    endpoint = f"http://127.0.0.1:{a_free_port()}"
    port = endpoint.rsplit(":", 1)[1]
    run_hekla("up", "--address", ray_head.address, "--home", str(home), "--port", port, HEKLA_RAY_NAMESPACE="live")
    try:
        yield Live(endpoint, home)
    finally:
        run_hekla("down", "--home", str(home))


def run_hekla(*arguments: str, fails: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the CLI as a user would; what it printed is in the error when it exits other than expected."""
    command = [sys.executable, "-m", "hekla.platform.cli", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        env=inherited | environment,
    )
    said = f"hekla {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == fails, said
    return done


@pytest.fixture(name="hekla")
def hekla_fixture() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`hekla(*arguments, fails=exit code, VARIABLE=value)`: runs the CLI in a process of its own."""
    return run_hekla


@pytest.fixture(name="simulated")
def simulated_fixture() -> Callable[..., dict[str, Any]]:
    """Makes ModelBooster manifests of simulated engines."""
    return simulated


@pytest.fixture
def free_port() -> Callable[[], int]:
    return a_free_port


def a_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class VllmModel:
    """Real vLLM behind the ingress, and where the engines themselves are."""

    name: str
    ingress: str
    engine: str = ""
    decode: str = ""
    engine_model: str = ""


def example(live: Live, folder: str) -> dict[str, Any]:
    live.client.apply(ROOT / "examples" / folder)
    (manifest,) = yaml.safe_load_all((ROOT / "examples" / folder / "model.yaml").read_text())
    live.client.wait_ready("ModelBooster", manifest["metadata"]["name"], timeout_s=240)
    live.until(lambda: manifest["spec"]["name"] in live.model_names(), "the ingress knows the route")
    return dict(manifest)


@pytest.fixture(scope="session")
def vllm_model(live: Live) -> VllmModel:
    """examples/quickstart, ready."""
    manifest = example(live, "quickstart")
    (engine,) = live.engines_of("quickstart")
    return VllmModel(manifest["spec"]["name"], live.endpoint, engine=engine["status"]["address"])


@pytest.fixture(scope="session")
def vllm_together(vllm_model: VllmModel) -> dict[str, Any]:
    """What one engine that does both phases answers to the prompts of the prefill/decode suite, asked beforehand."""
    prompts = [
        f"{seed}: " + " ".join(WORDS[(seed * 7 + i * (seed + 3)) % len(WORDS)] for i in range(300)) for seed in range(4)
    ]
    answers = {}
    for prompt in prompts:
        body = {"model": vllm_model.name, "prompt": prompt, "temperature": 0, "max_tokens": 12}
        answer = httpx.post(f"{vllm_model.ingress}/v1/completions", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        answers[prompt] = answer.json()
    return answers


@pytest.fixture(scope="session")
def vllm_pair(live: Live, vllm_together: dict[str, Any]) -> VllmModel:
    """examples/prefill-decode, ready, in the quickstart's place: each of its two engines wants a core to itself."""
    live.client.delete("ModelBooster", "quickstart")
    live.until(lambda: not live.engines_of("quickstart"), "the quickstart's engine has made room")
    manifest = example(live, "prefill-decode")
    (decode,) = [engine for engine in live.engines_of("prefill-decode") if engine["spec"]["role"] == "decode"]
    status = decode["status"]
    return VllmModel(
        manifest["spec"]["name"], live.endpoint, decode=status["address"], engine_model=status["models"][0]
    )


@pytest.fixture
def vllm_messages(tmp_path: Path) -> ModuleType:
    """vLLM's own classes of KV event messages, taken from its source: importing vLLM takes many seconds."""
    vllm = importlib.util.find_spec("vllm")
    if vllm is None or vllm.origin is None:
        pytest.skip("vLLM is not installed")
    tree = ast.parse((Path(vllm.origin).parent / "distributed" / "kv_events.py").read_text())
    wanted = {"EventBatch", "KVCacheEvent", "BlockStored", "BlockRemoved", "AllBlocksCleared", "KVEventBatch"}
    classes = [ast.unparse(node) for node in tree.body if isinstance(node, ast.ClassDef) and node.name in wanted]
    head = "import msgspec\nfrom typing import Any\nExternalBlockHash = bytes | int\n"
    (tmp_path / "vllm_kv_events.py").write_text(head + "\n".join(classes))
    spec = importlib.util.spec_from_file_location("vllm_kv_events", tmp_path / "vllm_kv_events.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
