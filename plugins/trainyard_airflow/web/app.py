"""The pages: all models with what serves, and the report of each release. Read only.

Plugins' applications are open to everybody unless they ask: each route here depends on Airflow's own
authorization for the DAG `model_release`.
"""

from __future__ import annotations

import re
from typing import Annotated

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import HTMLResponse

from trainyard.asking import DAG_ID
from trainyard.errors import NotFound, TrainyardError
from trainyard.store.keys import check_id
from trainyard_airflow.web import pages

# Airflow's own rule for run ids: no slash, so no way out of the prefix.
_RUN = re.compile(r"^[A-Za-z0-9_.~:+-]{1,250}$")
# A page of ours loads nothing from anywhere and runs nothing.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_app() -> FastAPI:
    app = FastAPI(
        title="Trainyard",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_dag(method="GET", param_dag_id=DAG_ID))],
    )

    @app.get("/", response_class=HTMLResponse)
    def models() -> HTMLResponse:
        return _page(pages.overview)

    @app.get("/runs/{run_id}/report", response_class=HTMLResponse)
    def run_report(run_id: Annotated[str, Path(max_length=250)]) -> HTMLResponse:
        if not _RUN.match(run_id):
            raise HTTPException(400, "That is no run id.")
        return _page(pages.report_of_run, run_id)

    @app.get("/releases/{model}/{release}/report", response_class=HTMLResponse)
    def release_report(model: str, release: str) -> HTMLResponse:
        return _page(pages.report_of_release, model, release)

    return app


def _page(make: object, *words: str) -> HTMLResponse:
    assert callable(make)
    try:
        for word in words[1:]:
            check_id("release", word)
        return HTMLResponse(make(*words), headers=_HEADERS)
    except NotFound as error:
        raise HTTPException(404, str(error)) from None
    except TrainyardError as error:
        raise HTTPException(502, f"{type(error).__name__}: {error}") from None
