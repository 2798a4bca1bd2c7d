"""The Python SDK: `Client` and `AsyncClient` do the same, one call for one call. docs/sdk.md shows every method."""

from hekla.platform.base.errors import ApiError
from hekla.platform.sdk.async_client import AsyncClient
from hekla.platform.sdk.client import Client
from hekla.platform.sdk.waiting import NotReady

__all__ = ["ApiError", "AsyncClient", "Client", "NotReady"]
