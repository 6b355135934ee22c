"""A function that does nothing, to measure the start and the answers of functions-framework itself."""

import functions_framework.aio


@functions_framework.aio.http
async def bare(request):
    """Answer any request."""
    return {"bare": True}
