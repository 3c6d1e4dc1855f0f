"""Reads Neuron devices from CloudWatch Container Insights, by a boto3 client that somebody else made."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from trainyard.errors import Inconclusive, PermanentError
from trainyard.neuron.insights import PERIOD, parse_results, queries
from trainyard.neuron.readings import Reading

_MOST_PAGES = 50
_DENIED = ("AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId")


@dataclass
class InsightsReader:
    """The whole minutes of the last `minutes`, for one node. Each call gives those that are new.

    Container Insights is two to three minutes late: it tells how a node was, not how it is.
    """

    client: Any
    cluster_name: str
    node_name: str
    minutes: int = 10
    _told: float = field(default=0.0, init=False, repr=False)

    def read(self) -> tuple[Reading, ...]:
        """Raises PermanentError (refused), Inconclusive (throttled, away, incomplete)."""
        # The minute that runs has half its values only.
        end = datetime.now(UTC).replace(second=0, microsecond=0)
        found = parse_results(self._results(end - timedelta(minutes=self.minutes), end))
        # The agent publishes the metrics of one minute one after another: the last may not be whole.
        whole = [each for each in found if each.at + PERIOD < end.timestamp()]
        fresh = tuple(each for each in whole if each.at > self._told)
        self._told = max([self._told, *(each.at for each in fresh)])
        return fresh

    def _results(self, begin: datetime, end: datetime) -> list[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        asked = {
            "MetricDataQueries": queries(self.cluster_name, self.node_name),
            "StartTime": begin,
            "EndTime": end,
            "ScanBy": "TimestampAscending",
        }
        out: list[dict[str, Any]] = []
        for _ in range(_MOST_PAGES):
            try:
                page = self.client.get_metric_data(**asked)
            except ClientError as error:
                raise _typed(error) from None
            except BotoCoreError as error:
                raise Inconclusive(f"CloudWatch did not answer properly: {error}") from None
            results = page.get("MetricDataResults") or []
            broken = next(
                (each for each in results if each.get("StatusCode") in ("InternalError", "Forbidden")), None
            )
            if broken is not None:
                raise Inconclusive(f"CloudWatch could not give {broken.get('Id')}: {broken['StatusCode']}")
            out += results
            if not page.get("NextToken"):
                return out
            asked["NextToken"] = page["NextToken"]
        raise Inconclusive(f"CloudWatch's answer came to no end in {_MOST_PAGES} pages")


def _typed(error: Any) -> Exception:
    code = str(error.response.get("Error", {}).get("Code"))
    message = f"CloudWatch refused GetMetricData: {code}: {error.response.get('Error', {}).get('Message')}"
    if code in _DENIED:
        return PermanentError(f"{message}. The AWS connection needs cloudwatch:GetMetricData.")
    if code in ("ValidationError", "InvalidParameterValue", "InvalidParameterCombination"):
        return PermanentError(message)
    return Inconclusive(message)
