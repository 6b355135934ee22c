"""A bare ASGI app that echoes the body: the lower bound for any server in Python."""


async def app(scope, receive, send):
    """Read the whole body and return its beginning."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body[:64]})
