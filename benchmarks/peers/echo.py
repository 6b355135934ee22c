"""A bare ASGI app that gives back what it gets: the floor under every server in Python."""


async def app(scope, receive, send):
    """Reads the whole body and answers it."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body[:64]})
