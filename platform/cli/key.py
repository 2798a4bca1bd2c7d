"""`hekla key`: API keys. The secret is made here, shown once, and only its digest leaves this process."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer

from hekla.platform.api.kinds.apikey import DEFAULT_TENANT
from hekla.platform.api.meta import Json
from hekla.platform.api.registry import kind_named
from hekla.platform.base.clock import SystemClock, rfc3339
from hekla.platform.base.errors import AlreadyExists, BadRequest, NotFound
from hekla.platform.cli.options import AllNamespaces, Namespace, ObjectName, client_of
from hekla.platform.cli.output import DataFormat, listed, progress, say, write_data
from hekla.platform.cli.tables import print_objects
from hekla.routing.identity.api_keys import ID_BYTES, SECRET_BYTES, NewKey, new_key

DAY_S = 86_400
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}
API_VERSION = "hekla.io/v1alpha1"

key = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")

Output = Annotated[DataFormat, typer.Option("--output", "-o", help="How to print.")]


@key.command("create")
def create(
    context: typer.Context,
    name: ObjectName,
    tenant: Annotated[str, typer.Option(help="The Tenant it belongs to.")] = DEFAULT_TENANT,
    user: Annotated[str, typer.Option(help="The person or program that gets it.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="inference (the default), metrics or admin; repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only models of this name or glob; repeatable.")] = None,
    expires: Annotated[str, typer.Option(help="Time until it is refused: 90d, 12h; never without it.")] = "",
    namespace: Namespace = "default",
) -> None:
    """Make a key and show it, this once."""
    made = _new_key()
    spec: Json = {"id": made.id, "digest": made.digest, "tenant": tenant, "user": user}
    if scope:
        spec["scopes"] = scope
    if model:
        spec["models"] = model
    if expires:
        spec["expiresAt"] = _from_now(expires, "--expires")
    meta = {"name": name, "namespace": namespace}
    with client_of(context, namespace) as client:
        if any(obj["metadata"]["name"] == name for obj in client.list("ApiKey")):
            raise AlreadyExists(
                f"ApiKey {namespace}/{name} is there already; for a new secret: hekla key rotate {name}"
            )
        client.apply([{"apiVersion": API_VERSION, "kind": "ApiKey", "metadata": meta, "spec": spec}])
    _show(made)


@key.command("list")
def list_keys(
    context: typer.Context,
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    output: Output = DataFormat.TABLE,
) -> None:
    """Show keys: ids, tenants and states, never secrets."""
    with client_of(context, namespace) as client:
        items = client.list("ApiKey", all_namespaces=all_namespaces)
    if output is not DataFormat.TABLE:
        write_data(listed(items), output)
    elif items:
        print_objects(kind_named("ApiKey"), items, with_namespace=all_namespaces)
    else:
        progress("no keys" + ("" if all_namespaces else f" in namespace {namespace}"))


@key.command("revoke")
def revoke(context: typer.Context, name: ObjectName, namespace: Namespace = "default") -> None:
    """Refuse a key from now on, and its former secret too. NAME may be the key's id."""
    with client_of(context, namespace) as client:
        found = _named(client, name)
        client.patch("ApiKey", found, {"spec": {"revoked": True}})
    say(f"ApiKey {namespace}/{found} revoked")


@key.command("rotate")
def rotate(
    context: typer.Context,
    name: ObjectName,
    grace: Annotated[str, typer.Option(help="How long the old secret is still good: 24h, 30m, 0s.")] = "24h",
    namespace: Namespace = "default",
) -> None:
    """Make a new secret for a key and show it, this once. NAME may be the key's id."""
    made, until = _new_key(), _from_now(grace, "--grace")
    with client_of(context, namespace) as client:
        found = _named(client, name)
        old = client.get("ApiKey", found)
        if old["spec"].get("revoked"):
            raise BadRequest(f"ApiKey {namespace}/{found} is revoked; make another: hekla key create")
        previous = {"id": old["spec"]["id"], "digest": old["spec"]["digest"], "expiresAt": until}
        # With its version: two rotations at once must not both believe that they won.
        meta = {"resourceVersion": old["metadata"]["resourceVersion"]}
        spec = {"id": made.id, "digest": made.digest, "previous": previous}
        client.patch("ApiKey", found, {"metadata": meta, "spec": spec})
    progress(f"the old secret is good until {until}")
    _show(made)


def _new_key() -> NewKey:
    return new_key(secrets.token_bytes(ID_BYTES + SECRET_BYTES))


def _show(made: NewKey) -> None:
    progress(f"key {made.id}; keep it now, it is not shown again:")
    say(made.key)


def _named(client: Any, name: str) -> str:
    for obj in client.list("ApiKey"):
        ids = (obj["spec"]["id"], (obj["spec"].get("previous") or {}).get("id"))
        if name == obj["metadata"]["name"] or name in ids:
            return str(obj["metadata"]["name"])
    raise NotFound(f"there is no API key with the name or id {name!r} in namespace {client.namespace}")


def _from_now(text: str, option: str) -> str:
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS_S or not number.isascii() or not number.isdigit() or len(number) > 6:
        raise BadRequest(f"{option}: {text!r} is not a time span; write 90d, 12h, 30m or 0s")
    return rfc3339(SystemClock().now() + int(number) * UNITS_S[unit])
