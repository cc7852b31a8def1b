"""The usual homemade way to make it asynchronous: Celery, Redis, and endpoints that clients have to learn.

    celery -A homemade worker
    uvicorn homemade:app --port 7101

Each TODO is a question that Meanwhile answers, and that this file leaves open, as most do.
"""

import os
import time

from celery import Celery
from celery.result import AsyncResult
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
SLOW_S = float(os.environ.get("SLOW_S", "3"))

celery = Celery("homemade", broker=REDIS_URL, backend=REDIS_URL)
app = FastAPI()


class Order(BaseModel):
    customer: str
    number: int = 0


# TODO: a worker that is killed loses the task, unless acks_late is set; then a slow task runs twice.
@celery.task(name="report")
def report(customer: str, number: int) -> dict:
    time.sleep(SLOW_S)
    return {"customer": customer, "number": number, "pages": 3}


@app.post("/reports", status_code=202)
def submit(order: Order, response: Response) -> dict:
    # TODO: a repeated request makes a second report. TODO: one customer's reports may overtake each other.
    # TODO: clients that know only 200 break on the day on which this is deployed.
    task = report.delay(order.customer, order.number)
    response.headers["Location"] = f"/reports/{task.id}"
    return {"id": task.id}


@app.get("/reports/{task}")
def show(task: str) -> dict:
    result = AsyncResult(task, app=celery)
    # TODO: an unknown id, and a result that has expired, are PENDING for ever.
    if result.failed():
        raise HTTPException(status_code=502, detail=str(result.result))
    return {"id": task, "status": result.status, "result": result.result if result.successful() else None}
