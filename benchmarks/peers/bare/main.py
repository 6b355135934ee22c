"""A function that does nothing: what functions-framework itself takes to start and to answer."""

import functions_framework.aio


@functions_framework.aio.http
async def bare(request):
    """Answers anything."""
    return {"bare": True}
