"""Images and documents: as URLs and data URLs in OpenAI's format, as sources in Anthropic's. Pure."""

from __future__ import annotations

import re
from typing import Any

from hekla.routing.translation.problems import Json, Untranslatable, a_text, an_object

_DATA_URL = re.compile(r"data:([A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+);base64,", re.ASCII)
PDF = "application/pdf"


def source_of(url: str, path: str) -> Json:
    """The Anthropic source of an OpenAI image URL."""
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    head = _DATA_URL.match(url)
    if head is None:
        raise Untranslatable(path, "is no URL of an image; allowed: http(s)://…, or data:<media type>;base64,…")
    return {"type": "base64", "media_type": head[1], "data": url[head.end() :]}


def url_of(source: Any, path: str) -> str:
    """The OpenAI URL of an Anthropic source."""
    source = an_object(source, path)
    match source.get("type"):
        case "url":
            return a_text(source.get("url"), f"{path}.url")
        case "base64":
            media_type = a_text(source.get("media_type"), f"{path}.media_type")
            return f"data:{media_type};base64,{a_text(source.get('data'), f'{path}.data')}"
    raise Untranslatable(f"{path}.type", "names no source that can be translated; allowed: base64, url")


def document_of(part: Json, path: str) -> Json:
    """The Anthropic document of an OpenAI `file` part."""
    file = an_object(part.get("file"), f"{path}.file")
    if not isinstance(file.get("file_data"), str):
        raise Untranslatable(f"{path}.file", "refers to a file kept by OpenAI; allowed: file_data")
    source = source_of(file["file_data"], f"{path}.file.file_data")
    if source.get("media_type") != PDF:
        raise Untranslatable(f"{path}.file.file_data", f"is no PDF; allowed: data:{PDF};base64,…")
    title = {"title": file["filename"]} if file.get("filename") else {}
    return {"type": "document", "source": source, **title}


def file_of(block: Json, path: str) -> Json:
    """The OpenAI part of an Anthropic document."""
    source = an_object(block.get("source"), f"{path}.source")
    if source.get("type") == "text":
        return {"type": "text", "text": a_text(source.get("data"), f"{path}.source.data")}
    if source.get("type") != "base64" or source.get("media_type") != PDF:
        raise Untranslatable(f"{path}.source", "can't be translated for OpenAI; allowed: text, or a PDF in base64")
    filename = block.get("title") or "document.pdf"
    return {"type": "file", "file": {"filename": filename, "file_data": url_of(source, f"{path}.source")}}
