"""The handler that tells what models took."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from fsagent.faces.http.table import Call
from fsagent.faces.usage import DAYS, MAX_DAYS, read_usage_view
from fsagent.workspace.usage import By


class UsageQuery(Struct, frozen=True):
    days: Annotated[int, Meta(ge=1, le=MAX_DAYS, description="today and the days before it, so many in all")] = DAYS
    by: Annotated[By, Meta(description="what the rows are")] = "day"


async def get_usage(call: Call) -> Response:
    """What models took, by day, task or model, and how far the budgets of today and this month are used."""
    return await call.give(await call.off(read_usage_view, call.layout, call.query.days, call.query.by))
