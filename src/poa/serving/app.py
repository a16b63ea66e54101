"""The HTTP interface: completions that are recorded before they are given, receipts and traces by id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poa.errors import PoaError
from poa.serving.access import Access
from poa.serving.desk import Desk, Unrecorded
from poa.serving.document import Trace
from poa.serving.requests import BadRequest, Completion

MOST_BYTES = 64 * 1024
MOST_WAITING = 16
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "server_error"}
_Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A request that ends with this status and error body."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param


def app(desk: Desk, access: Access, most_bytes: int = MOST_BYTES, most_waiting: int = MOST_WAITING) -> Starlette:
    """The application over an open desk. most_bytes: of a body; most_waiting: requests before 429."""
    waiting = 0

    async def complete(request: Request) -> Response:
        nonlocal waiting
        asked = _completion(await _body(request, most_bytes))
        if asked.model not in ("", desk.model, f"sha256:{desk.adapter}"):
            raise Refused(404, "model_not_found", f"no model {asked.model[:100]!r}; served is {desk.model!r}", "model")
        if waiting >= most_waiting:
            raise Refused(429, "queue_full", f"{waiting} requests are waiting already; try again later")
        waiting += 1
        try:
            trace = await asyncio.wrap_future(desk.submit(lambda at: at.answer(asked)))
        except Unrecorded as error:
            raise Refused(503, "receipts_unavailable", str(error)) from error
        except PoaError as error:
            raise Refused(400, "invalid_prompt", _said(error), "prompt") from error
        finally:
            waiting -= 1
        return JSONResponse(_answer(trace, desk.model), headers={"X-Receipt-Id": trace.receipt_id})

    async def receipt(request: Request) -> Response:
        found = await asyncio.wrap_future(desk.submit(lambda at: at.book.receipt(request.path_params["name"])))
        return _found(None if found is None else json.dumps(found, sort_keys=True).encode())

    async def trace(request: Request) -> Response:
        return _found(await asyncio.wrap_future(desk.submit(lambda at: at.book.trace(request.path_params["name"]))))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": desk.model})

    def keyed(handler: _Handler) -> _Handler:
        async def guarded(request: Request) -> Response:
            if not access.granted(request.headers.get("authorization")):
                raise Refused(401, "invalid_api_key", "give the key as `Authorization: Bearer KEY`")
            return await handler(request)

        return guarded

    return Starlette(
        routes=[
            Route("/v1/completions", keyed(complete), methods=["POST"]),
            Route("/v1/receipts/{name}", keyed(receipt)),
            Route("/v1/traces/{name}", keyed(trace)),
            Route("/healthz", health),
        ],
        exception_handlers={Refused: _refused, HTTPException: _http, Exception: _broken},
    )


async def _body(request: Request, most: int) -> bytes:
    """The whole body; refuses while reading, so that a long one is never held in memory."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise Refused(413, "body_too_large", f"a body may have {most} bytes")
    return data


def _completion(data: bytes) -> Completion:
    try:
        return Completion.read(json.loads(data))
    except BadRequest as error:
        raise Refused(400, "invalid_request", str(error), error.param or None) from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_json", "the body is not JSON") from error


def _answer(trace: Trace, model: str) -> dict[str, Any]:
    prompt, completion = trace.input.n_tokens, len(trace.output.tokens)
    return {
        "id": trace.receipt_id,
        "object": "text_completion",
        # The first 48 bits of a version 7 UUID are milliseconds.
        "created": int(trace.receipt_id.removeprefix("rcpt_").replace("-", "")[:12], 16) // 1000,
        "model": model,
        "choices": [
            {"index": 0, "text": trace.output.text, "finish_reason": trace.output.finish_reason, "logprobs": None}
        ],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        "poa": {"receipt_id": trace.receipt_id, "status": "ready", "trace": trace.digest},
    }


def _found(data: bytes | None) -> Response:
    if data is None:
        raise Refused(404, "receipt_not_found", "there is no such receipt")
    return Response(data, media_type="application/json")


def _said(error: PoaError) -> str:
    return str(error).replace("max_new_tokens", "max_tokens").replace("the question", "the prompt")


def _error(status: int, code: str, message: str, param: str | None) -> JSONResponse:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(status)
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(error.status, error.code, error.message, error.param)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "unknown_route", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return _error(error.status_code, code, error.detail, None)


async def _broken(_: Request, error: Exception) -> Response:
    # The traceback goes to the server's log; a client learns nothing about the inside.
    return _error(500, "internal_error", "the server failed; the answer was not recorded", None)
