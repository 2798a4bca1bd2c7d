"""`s3://bucket/prefix` and `obs://bucket/prefix`: any S3-compatible store, as `aws s3 sync` would copy it.

Credentials: ACCESS_KEY and SECRET_KEY, or AWS's own variables; ENDPOINT (or AWS_ENDPOINT_URL) for stores other than AWS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hekla.deployments.models.source import Progress, not_reachable
from hekla.platform.base.errors import Permanent

OBJECTS_MAX = 100_000
"""A model has some hundred files; a prefix with more than this many objects is a mistake."""

REFUSALS = frozenset({
    "403", "404", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket", "NoSuchKey",
    "ExpiredToken", "InvalidToken", "PermanentRedirect", "AuthorizationHeaderMalformed",
})  # fmt: skip


@dataclass(frozen=True)
class _Object:
    key: str
    name: str
    """Path below the prefix."""
    size: int
    modified_s: float


def download(uri: str, into: Path, env: Mapping[str, str], progress: Progress) -> None:
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    except ImportError:
        raise Permanent(f'{uri}: needs the package boto3: pip install "hekla[s3]"') from None
    bucket, _, prefix = uri.partition("://")[2].partition("/")
    if not bucket:
        raise Permanent(f"{uri!r}: names no bucket; the form is s3://bucket/prefix")
    try:
        client = _client(env)
        _copy(client, bucket, list(_objects(client, uri, bucket, prefix)), into, progress)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Permanent(f"{uri}: no credentials: set ACCESS_KEY and SECRET_KEY in the model's env") from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in REFUSALS:
            raise Permanent(f"{uri}: refused with {code}: {error}") from error
        raise not_reachable(uri, error) from error
    except ValueError as error:
        raise Permanent(f"{uri}: {error}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise not_reachable(uri, error) from error


def _client(env: Mapping[str, str]) -> Any:
    import boto3
    from botocore.config import Config

    def first(*names: str) -> str | None:
        return next((env[name] for name in names if env.get(name)), None)

    return boto3.session.Session().client(
        "s3",
        endpoint_url=first("ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        region_name=first("REGION", "AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        aws_access_key_id=first("ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=first("SECRET_KEY", "AWS_SECRET_ACCESS_KEY"),
        aws_session_token=first("SESSION_TOKEN", "AWS_SESSION_TOKEN"),
        config=Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60),
    )


def _objects(client: Any, uri: str, bucket: str, prefix: str) -> Iterator[_Object]:
    """What is below the prefix taken as a folder. Raises Permanent for none, too many, or a name that would leave it."""
    folder = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
    count = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
        for item in page.get("Contents", ()):
            name = item["Key"][len(folder) :]
            if not name or name.endswith("/"):
                continue
            if name.startswith("/") or ".." in name.split("/"):
                raise Permanent(f"{uri}: object {item['Key']!r} has a name that leaves the folder")
            count += 1
            if count > OBJECTS_MAX:
                raise Permanent(f"{uri}: has more than {OBJECTS_MAX} objects; name the model's own prefix")
            yield _Object(item["Key"], name, int(item["Size"]), item["LastModified"].timestamp())
    if not count:
        raise Permanent(f"{uri}: there is no object below this prefix")


def _copy(client: Any, bucket: str, objects: list[_Object], into: Path, progress: Progress) -> None:
    total = sum(item.size for item in objects) or 1
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress(min(1.0, done / total), f"{done / 2**20:.0f} of {total / 2**20:.0f} MiB")

    for item in objects:
        path = into / item.name
        if _is_current(path, item):
            tell(item.size)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".incomplete")
        # Streamed by hand: the library's own transfer calls back from other threads, where raising ends nothing.
        body = client.get_object(Bucket=bucket, Key=item.key)["Body"]
        with draft.open("wb") as file:
            for chunk in body.iter_chunks(2**20):
                file.write(chunk)
                tell(len(chunk))
        draft.replace(path)


def _is_current(path: Path, item: _Object) -> bool:
    """`sync`'s rule: same size, and not older than the object."""
    try:
        have = path.stat()
    except FileNotFoundError:
        return False
    return have.st_size == item.size and have.st_mtime >= item.modified_s
