"""The old service of examples/legacy, with books: the reports that it was asked for, and those of them by jobs."""

from fastapi import Request
from service import app

books = {"asked": 0, "by_jobs": 0}


@app.middleware("http")
async def count(request: Request, call_next):
    if request.url.path == "/reports":
        books["asked"] += 1
        # A proxied request names its way; a step is a call of its own.
        books["by_jobs"] += "via" not in request.headers
    return await call_next(request)


@app.get("/books")
async def show() -> dict:
    return books
