"""Bodies of requests on the local socket."""

from aiohttp import web


async def read_body(request: web.Request, most_bytes: int, refusal: str) -> bytes:
    """Return a body of at most so many bytes.

    Raises:
        web.HTTPBadRequest: it is longer; the text is `refusal`.
    """
    data = bytearray()
    async for piece in request.content.iter_chunked(most_bytes):
        data += piece
        if len(data) > most_bytes:
            raise web.HTTPBadRequest(text=refusal)
    return bytes(data)
