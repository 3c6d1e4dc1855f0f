"""The last task: record, report, asset event, and the lease given back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import AssetAlias, BaseOperatorLink

from trainyard_airflow.operators.stage import SettleOperator

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext

ALIAS = "trainyard-releases"
REPORT_LINK = "report"


class ReportLink(BaseOperatorLink):
    """Opens the report of the release, served by our plugin behind Airflow's own login."""

    name = "Release report"
    xcom_key = REPORT_LINK

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return f"/trainyard/runs/{ti_key.run_id}/report"


class RecordOperator(SettleOperator):
    """Runs the stage `record`, then tells Airflow's assets about a promotion.

    Other DAGs may schedule on the asset `trainyard://models/<model>`; its event carries release and revision.
    """

    operator_extra_links = (ReportLink(),)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(outlets=[AssetAlias(ALIAS)], **kwargs)

    def execute(self, context: AirflowContext) -> None:
        from airflow.sdk.definitions.asset import Model

        super().execute(context)
        _, release = self.open(context)
        if release.state != "promoted":
            return
        context["outlet_events"][AssetAlias(ALIAS)].add(
            Model(name=f"trainyard-{release.model}", uri=f"trainyard://models/{release.model}"),
            extra={"release": release.id, "revision": release.plan.revision, "previous": release.previous},
        )
