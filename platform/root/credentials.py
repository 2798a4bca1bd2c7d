"""Secrets the platform keeps for itself in its home folder, readable by their owner alone.

`admin-key`: an API key with the scope `admin`, for the CLI and SDK on this machine. `api-token`: by it the resource API
knows the ingress; nobody else needs it. Both are made when they are missing, once authentication is on.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Ref
from hekla.platform.base.errors import NotFound
from hekla.platform.sdk.address import ADMIN_KEY_FILE
from hekla.platform.store.interface import Store
from hekla.routing.identity.api_keys import ID_BYTES, SECRET_BYTES, id_of, is_key_of, new_key

API_TOKEN_FILE = "api-token"
ADMIN_KEY_NAME = "hekla-admin"
TOKEN_BYTES = 32


def api_token(home: Path) -> str:
    """The token in the home folder, or a new one."""
    file = home / API_TOKEN_FILE
    found = _read(file)
    if not found:
        found = secrets.token_urlsafe(TOKEN_BYTES)
        write_secret(file, found)
    return found


def ensure_admin_key(home: Path, store: Store) -> Path:
    """The file with a key that is good: the one there is, or a new one when that is missing, revoked or another store's."""
    file = home / ADMIN_KEY_FILE
    known = _read(file).encode()
    ref = Ref("ApiKey", "default", ADMIN_KEY_NAME)
    try:
        spec = store.get(ref)["spec"]
    except NotFound:
        spec = None
    if spec and id_of(known) == spec["id"] and is_key_of(known, spec["digest"]) and not spec.get("revoked"):
        return file
    made = new_key(secrets.token_bytes(ID_BYTES + SECRET_BYTES))
    fresh = {"id": made.id, "digest": made.digest, "user": "hekla up", "scopes": ["admin"]}
    meta = {"name": ref.name, "namespace": ref.namespace}
    obj = admit({"apiVersion": "hekla.io/v1alpha1", "kind": ref.kind, "metadata": meta, "spec": fresh})
    write_secret(file, made.key)  # first the file: a key nobody has is worse than a file that is not good yet
    if spec is None:
        store.create(obj)
    else:
        store.update({**store.get(ref), "spec": obj["spec"]})
    return file


def write_secret(file: Path, text: str) -> None:
    """Replace a file's content at once; nobody but its owner can read it at any moment."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text + "\n")
    draft.replace(file)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
