"""The controller that says of each ExternalModelProvider whether it can be used."""

from __future__ import annotations

from collections.abc import Iterable

from hekla.platform.api.meta import Condition, Json, Ref, set_condition
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import NotFound
from hekla.platform.control.interface import Again
from hekla.platform.store.interface import Store
from hekla.routing.external.provider import Resolved, resolved


class ExternalModelProviderController:
    """Implements `Controller`. It only reports: every ingress resolves providers by itself from the same objects."""

    name = "externalmodelprovider"
    kind = "ExternalModelProvider"
    watches: tuple[str, ...] = ("Secret",)

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        """The providers that name the Secret."""
        meta = obj["metadata"]
        for provider in self._store.list(self.kind, meta["namespace"]).items:
            if _secret_name(provider) == meta["name"]:
                yield Ref(self.kind, meta["namespace"], provider["metadata"]["name"])

    async def reconcile(self, key: Ref) -> Again | None:
        try:
            provider = self._store.get(key)
        except NotFound:
            return None
        status = status_of(provider, resolved(provider, self._secrets(provider)), rfc3339(self._clock.now()))
        if status != provider.get("status"):
            self._store.update_status({**provider, "status": status})
        return None

    def _secrets(self, provider: Json) -> dict[tuple[str, str], Json]:
        namespace, name = provider["metadata"]["namespace"], _secret_name(provider)
        try:
            return {(namespace, name): self._store.get(Ref("Secret", namespace, name))} if name else {}
        except NotFound:
            return {}

    def __repr__(self) -> str:
        return "ExternalModelProviderController()"


def status_of(provider: Json, found: Resolved, now: str) -> Json:
    """The conditions `Ready` and `CredentialsResolved`. Pure."""
    conditions: list[Json] = list((provider.get("status") or {}).get("conditions") or ())
    generation = provider["metadata"].get("generation", 1)
    for kind, finding in (("Ready", found.ready), ("CredentialsResolved", found.credentials)):
        condition = Condition(
            type=kind, status="True" if finding.holds else "False", reason=finding.reason, message=finding.message,
            observed_generation=generation,
        )  # fmt: skip
        conditions = set_condition(conditions, condition, now)
    return {"observedGeneration": generation, "conditions": conditions}


def _secret_name(provider: Json) -> str:
    ref = ((provider.get("spec") or {}).get("auth") or {}).get("secretRef") or {}
    return str(ref.get("name") or "")
