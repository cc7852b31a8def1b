"""A slow endpoint as many teams have it: POST /reports works for seconds, and answers 200 with the report.

    uvicorn service:app --port 7100

SLOW_S is the time of a report, in seconds.
"""

import asyncio
import os

from fastapi import FastAPI
from pydantic import BaseModel

SLOW_S = float(os.environ.get("SLOW_S", "3"))

app = FastAPI()


class Order(BaseModel):
    customer: str
    number: int = 0


@app.post("/reports")
async def report(order: Order) -> dict:
    await asyncio.sleep(SLOW_S)
    return {"customer": order.customer, "number": order.number, "pages": 3}
