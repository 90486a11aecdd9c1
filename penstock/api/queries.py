"""A query parameter that nobody knows is refused: a filter that is misspelt would give everything."""

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from penstock.errors import InputError
from penstock.pipeline.complaints import suggestion


async def only_known(request: Request) -> None:
    """
    What the OpenAPI document does not name for this operation is none of its parameters.

    Raises: InputError with the nearest name.
    """
    given = set(request.query_params)
    if not given:
        return
    known = await run_in_threadpool(_known, request)
    if unknown := sorted(given - set(known)):
        name = unknown[0][:60]
        raise InputError("it is not known here", where=f"query.{name}", remedy=suggestion(name, known))


def _known(request: Request) -> list[str]:
    operations = (told for verbs in request.app.openapi()["paths"].values() for told in verbs.values())
    operation = next(told for told in operations if told["operationId"] == request.scope["route"].name)
    return [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
