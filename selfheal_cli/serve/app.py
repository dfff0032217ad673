"""The HTTP routes of scoring: MLflow's, the V2 protocol's, and labels."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from selfheal_cli import __version__
from selfheal_cli.errors import RequestRefused
from selfheal_cli.registry.scoring import MLFLOW_VERSION
from selfheal_cli.serve.http import v2 as inference
from selfheal_cli.serve.http.feedback import REQUEST_ID, Labels, Outcome
from selfheal_cli.serve.http.invocations import AT_ONCE_BYTES, ScoredRequest
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.http.middleware import (
    CALLER,
    FAILED,
    GIVEN,
    REFUSED,
    REQUEST,
    ROUTE,
    VERSION,
    Gate,
    Scope,
    again,
    problem,
)
from selfheal_cli.serve.http.openapi import (
    INVOCATIONS,
    PROBLEMS,
    TEXT,
    V1,
    V2_PROBLEMS,
    body_of,
    documented,
)
from selfheal_cli.serve.http.parsing import complaint
from selfheal_cli.serve.http.v1 import as_table
from selfheal_cli.serve.operator.routes import operator_routes
from selfheal_cli.serve.operator.status import ServerInfo
from selfheal_cli.serve.service import ScoringService
from selfheal_cli.serve.staff import SummedMetrics, summed
from selfheal_cli.serve.tracing import ROWS

JSON, BYTES = "application/json", "application/octet-stream"
ID = re.compile(REQUEST_ID)


class Recording(BaseModel):
    """Rows on their way to disk, rows that were lost to it, and why."""

    waiting: int
    unrecorded: int
    problem: str


class Ready(BaseModel):
    """A model that can be asked."""

    name: str
    ready: bool = True


class Details(BaseModel):
    """How the scoring process is; ``following`` says why a publication is not served."""

    model: str
    version: str
    snapshot: str
    threshold: float
    recording: Recording
    following: str
    healer_pid: int | None
    healer_restarts: int


def create_app(front: ScoringService) -> FastAPI:
    """The application with its routes; `guarded` puts the gate before it."""
    app = FastAPI(
        title="selfheal",
        description="A registered model behind HTTP: MLflow's scoring protocol, the V2 inference "
        "protocol, and labels that come later.",
        version=__version__,
        docs_url=None,  # their pages load scripts from other hosts
        redoc_url=None,
    )
    explain_refusals(app, front.meters)
    _mlflow_routes(app, front)
    _label_routes(app, front)
    _v1_routes(app, front)
    _v2_server_routes(app)
    _v2_model_routes(app, front)
    own = facts_of(front)
    app.include_router(
        operator_routes(
            front.channel,
            front.meters,
            own if front.staff is None else lambda: summed(own(), front.others()),
            front.guard,
            counted=SummedMetrics(front.meters.registry, front.others),
        )
    )
    documented(app, inference.Request, Labels)
    return app


def explain_refusals(app: FastAPI, meters: ServerMetrics) -> None:
    """Every refusal is counted and said in one form."""
    app.add_exception_handler(RequestRefused, _refused(meters))
    app.add_exception_handler(RequestValidationError, _invalid(meters))
    app.add_exception_handler(HTTPException, _refused_by_fastapi(meters))
    app.add_exception_handler(Exception, _broken)


def facts_of(front: ScoringService) -> Callable[[], ServerInfo]:
    """What the scoring process knows of itself, whenever it is asked."""
    started = time.time()

    def facts() -> ServerInfo:
        served, canary, recorder = front.scorer.served, front.scorer.canary, front.recorder
        return ServerInfo(
            model=front.model,
            version=served.version,
            snapshot=served.snapshot,
            threshold=served.threshold,
            queue=recorder.waiting,
            unrecorded=recorder.unrecorded,
            conflicting=recorder.conflicting,
            kept=front.keeper.kept if front.keeper else 0,
            unread=front.keeper.unread if front.keeper else 0,
            lost=front.keeper.lost if front.keeper else 0,
            stalled=front.keeper.stalled if front.keeper else 0.0,
            recording=recorder.problem,
            following=front.following.problem,
            started=started,
            canary_version=canary.served.version if canary else None,
            canary_rows=front.scorer.canary_rows,
        )

    return facts


def guarded(app: FastAPI, front: ScoringService) -> Gate:
    """The application behind the gate: tokens, limits, counters."""
    return Gate(app, front.guard, front.settings.limits, front.meters, front.access_log)


def _mlflow_routes(app: FastAPI, front: ScoringService) -> None:
    async def ping(request: Request) -> Response:
        """Whether the model can be asked; the body is a line break, as MLflow has it."""
        request.scope[ROUTE] = request.url.path
        return Response("\n", media_type=JSON)

    app.get("/ping", responses=TEXT)(ping)
    app.get("/health", responses=TEXT)(ping)

    @app.get("/version", responses=TEXT)
    async def mlflow_version(request: Request) -> Response:
        """The version of MLflow whose protocol this is, as MLflow has it."""
        request.scope[ROUTE] = "/version"
        return Response(MLFLOW_VERSION, media_type=JSON)

    @app.get("/health/details", responses={200: {"model": Details}, **PROBLEMS["read"]})
    async def details(request: Request) -> Response:
        """What serves, and what does not work at the moment."""
        request.scope[ROUTE] = "/health/details"
        return _json(_details(front))

    @app.post("/invocations", openapi_extra=INVOCATIONS, responses=PROBLEMS["invocations"])
    async def invocations(request: Request) -> Response:
        """Score rows."""
        request.scope[ROUTE] = "/invocations"
        body = await request.body()
        return await _scored(front, request.scope, body, request.headers.get("content-type"))


async def _scored(
    front: ScoringService, scope: Scope, body: bytes, content_type: str | None
) -> Response:
    """The answer to a table, whose rows are recorded."""
    answer = await front.invoke(body, content_type, scope[REQUEST])
    served, headers = front.scorer.served, {}
    if answer.scored is not None:
        served = answer.scored.served
        headers = await _recorded(front, scope, answer.scored, body)
    scope[VERSION] = served.shown_version
    return Response(answer.text, answer.status, served.headers() | headers, answer.media_type)


def _v1_routes(app: FastAPI, front: ScoringService) -> None:
    @app.get("/v1/models", responses=TEXT)
    async def models(request: Request) -> dict[str, list[str]]:
        """The models that are served."""
        request.scope[ROUTE] = "/v1/models"
        return {"models": [front.model]}

    @app.post("/v1/models/{model}:predict", openapi_extra=V1, responses=V2_PROBLEMS["predict"])
    async def predict(request: Request, model: str) -> Response:
        """Score rows as KServe's first protocol has them."""
        request.scope[ROUTE] = "/v1/models/predict"
        _require_served(front, model, None)
        names = front.scorer.served.quick.encoding.names
        body = await request.body()
        lane = front.lanes.small if len(body) <= AT_ONCE_BYTES else front.lanes.large
        table = await lane.run(len(body), partial(as_table, body, names))
        return await _scored(front, request.scope, table, JSON)

    @app.get("/v1/models/{model}", responses={200: {"model": Ready}, **V2_PROBLEMS["read"]})
    async def ready(request: Request, model: str) -> Response:
        """Whether the model can be asked."""
        request.scope[ROUTE] = "/v1/models/ready"
        _require_served(front, model, None)
        return _json(Ready(name=front.model))


async def _recorded(
    front: ScoringService, scope: Scope, scored: ScoredRequest, body: bytes
) -> dict[str, str]:
    """Have the rows written down; returns what the answer says of that."""
    front.record(scored, scope[REQUEST])
    scope[ROWS] = len(scored.probabilities)
    known = not scope[GIVEN] or await front.stands_for(scope[REQUEST], body)
    if not known:
        return {"x-selfheal-recorded": "no"}
    if front.selection is None:
        return {}
    places = await front.lanes.small.run(0, partial(front.let_through, scored, scope[REQUEST]))
    return {"x-selfheal-let-through": places} if places else {}


def _label_routes(app: FastAPI, front: ScoringService) -> None:
    @app.post(
        "/feedback", responses={200: {"model": Outcome}, **PROBLEMS["feedback"]},
        openapi_extra=body_of(Labels),
    )  # fmt: skip
    async def feedback(request: Request) -> Response:
        """Say what rows really were: late, in any order, more than once."""
        request.scope[ROUTE] = "/feedback"
        body = await request.body()
        work = partial(front.join, body, request.scope[CALLER])
        return _json(await front.lanes.labels.run(len(body), work))


def _v2_server_routes(app: FastAPI) -> None:
    @app.get("/v2", responses=TEXT)
    @app.get("/v2/", responses=TEXT, include_in_schema=False)  # as the protocol's own document
    async def server(request: Request) -> dict[str, Any]:
        """The server's metadata."""
        request.scope[ROUTE] = "/v2"
        return {"name": "selfheal", "version": __version__, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", responses=TEXT)
    async def live(request: Request) -> dict[str, bool]:
        """Whether the server lives."""
        request.scope[ROUTE] = "/v2/health/live"
        return {"live": True}

    @app.get("/v2/health/ready", responses=TEXT)
    async def ready(request: Request) -> dict[str, bool]:
        """Whether the server can be asked."""
        request.scope[ROUTE] = "/v2/health/ready"
        return {"ready": True}


def _v2_model_routes(app: FastAPI, front: ScoringService) -> None:
    model, at = "/v2/models/{model}", "/v2/models/{model}/versions/{number}"

    async def model_ready(request: Request, model: str, number: str | None = None) -> Response:
        """Whether the model can be asked."""
        request.scope[ROUTE] = "/v2/models/ready"
        _require_served(front, model, number)
        return _json(Ready(name=front.model))

    async def metadata(request: Request, model: str, number: str | None = None) -> Response:
        """What the model takes and gives."""
        request.scope[ROUTE] = "/v2/models"
        _require_served(front, model, number)
        return _json(inference.metadata(front.scorer.served, front.model))

    async def infer(request: Request, model: str, number: str | None = None) -> Response:
        """Score tensors, in JSON or as bytes behind it, whatever the content type says."""
        scope = request.scope
        scope[ROUTE] = "/v2/models/infer"
        _require_served(front, model, number)
        body = await request.body()
        lane = front.lanes.small if len(body) <= AT_ONCE_BYTES else front.lanes.large
        work = partial(
            inference.infer, _chosen(front, number), body,
            request.headers.get(inference.JSON_LENGTH), model=model, request_id=scope[REQUEST],
            key=front.settings.key, most=front.settings.limits.rows,
        )  # fmt: skip
        answer = await lane.run(len(body), work)
        served = answer.scored.served
        if answer.id is not None and ID.match(answer.id):  # others are answered, and name no row
            scope[REQUEST], scope[GIVEN] = answer.id, True
        headers = served.headers() | await _recorded(front, scope, answer.scored, body)
        scope[VERSION] = served.shown_version
        if answer.json_length is None:
            return Response(answer.content, headers=headers, media_type=JSON)
        headers[inference.JSON_LENGTH] = str(answer.json_length)
        return Response(answer.content, headers=headers, media_type=BYTES)

    problems: dict[Any, Any] = V2_PROBLEMS["read"]
    for path in (model, at):
        name = "_at" if path == at else ""
        read = {200: {"model": inference.Metadata}, **problems}
        app.get(path, operation_id=f"metadata{name}", responses=read)(metadata)
        ready = {200: {"model": Ready}, **problems}
        app.get(f"{path}/ready", operation_id=f"ready{name}", responses=ready)(model_ready)
        scored = {200: {"model": inference.Response}, **V2_PROBLEMS["infer"]}
        app.post(
            f"{path}/infer", operation_id=f"infer{name}", responses=scored,
            openapi_extra=body_of(inference.Request),
        )(infer)  # fmt: skip


def _require_served(front: ScoringService, model: str, number: str | None) -> None:
    served = front.scorer.served.shown_version
    if model != front.model or number not in (None, served):
        raise RequestRefused(
            f"model '{front.model}', version {served}, is what serves here",
            status=404, code="RESOURCE_DOES_NOT_EXIST", reason="unknown_model",
        )  # fmt: skip


def _chosen(front: ScoringService, number: str | None) -> inference.Choose:
    """Who answers: whom the share says, or the version that was asked for by its number."""
    if number is None:
        return front.scorer.choose
    served = front.scorer.served
    return lambda request: (served, None)


def _details(front: ScoringService) -> Details:
    served, recorder = front.scorer.served, front.recorder
    pid, restarts = front.healer()
    return Details(
        model=front.model,
        version=served.shown_version,
        snapshot=served.snapshot,
        threshold=served.threshold,
        recording=Recording(
            waiting=recorder.waiting, unrecorded=recorder.unrecorded, problem=recorder.problem
        ),
        following=front.following.problem,
        healer_pid=pid,
        healer_restarts=restarts,
    )


def _json(document: BaseModel, headers: dict[str, str] | None = None) -> Response:
    return Response(document.model_dump_json(), headers=headers, media_type=JSON)


def _refused(meters: ServerMetrics) -> Any:
    async def handle(request: Request, exc: RequestRefused) -> Response:
        meters.refused.labels(exc.reason).inc()
        request.scope[REFUSED] = exc.reason
        return Response(
            problem(request.url.path, exc), exc.status, again(exc.status), media_type=JSON
        )

    return handle


def _invalid(meters: ServerMetrics) -> Any:
    async def handle(request: Request, exc: RequestValidationError) -> Response:
        meters.refused.labels("malformed").inc()
        request.scope[REFUSED] = "malformed"
        refusal = RequestRefused(complaint(exc.errors()))
        return Response(problem(request.url.path, refusal), 400, media_type=JSON)

    return handle


def _refused_by_fastapi(meters: ServerMetrics) -> Any:
    """An unknown path or method is answered as MLflow's server does, all else as we do."""

    async def handle(request: Request, exc: HTTPException) -> Response:
        path, status = request.url.path, exc.status_code
        request.scope[REFUSED] = "malformed" if status == 400 else "unknown_route"
        meters.refused.labels(request.scope[REFUSED]).inc()
        if status != 400 and not path.startswith("/v2"):
            return await http_exception_handler(request, exc)
        why = "not JSON that can be read" if status == 400 else "there is no such route or method"
        refusal = RequestRefused(why, status=status)
        return Response(problem(path, refusal), status, exc.headers, JSON)

    return handle


async def _broken(request: Request, exc: Exception) -> Response:
    """Our own fault: the gate's log says where."""
    return Response(problem(request.url.path, FAILED), 500, media_type=JSON)
