"""What all stage operators share: which release, which stage, and what an error means to Airflow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

if TYPE_CHECKING:
    from airflow.sdk import Context as AirflowContext

    from trainyard.errors import TrainyardError
    from trainyard.release import Release
    from trainyard.stages.context import Context, Done, Skip

PLAN = "plan"
NOTE = "note"


class ReleaseOperator(BaseOperator):
    """Runs one stage of `trainyard.stages` for the release that `plan` made.

    :param stage: module name below trainyard.stages, or the full name of a module elsewhere.
    :param stage_kwargs: further keyword arguments of the stage's functions (a step's number).
    """

    ui_color = "#eef4ff"

    def __init__(self, *, stage: str, stage_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("retry_exponential_backoff", True)
        kwargs.setdefault("max_retry_delay", timedelta(minutes=5))
        # A stage with nothing to do is skipped; that must not skip what comes after it.
        kwargs.setdefault("trigger_rule", "none_failed")
        super().__init__(**kwargs)
        self.stage = stage
        self.stage_kwargs = stage_kwargs or {}
        self._opened: tuple[Context, dict[str, str]] | None = None

    @property
    def module(self) -> Any:
        return stage_module(self.stage)

    def open(self, context: AirflowContext) -> tuple[Context, Release]:
        """The seams and the record of this run's release."""
        from trainyard_airflow import seams

        # One set of clients a process; the record is read anew each time.
        if self._opened is None:
            self._opened = seams.context(), context["ti"].xcom_pull(task_ids=PLAN)
        ctx, where = self._opened
        return ctx, ctx.load(where["model"], where["release"])

    @contextlib.contextmanager
    def guarded(self, context: AirflowContext, *, final: bool = False) -> Iterator[None]:
        """Turns our two error words into Airflow's, and writes a final failure into the record.

        :param final: no error inside is worth another try.
        """
        from trainyard.errors import PermanentError, TransientError

        try:
            yield
        except (AirflowSkipException, TaskDeferred):
            raise
        except PermanentError as error:
            self.record_failure(context, error)
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        except TransientError as error:
            if final or _is_last(context):
                self.record_failure(context, error)
            if final:
                raise AirflowFailException(f"{type(error).__name__}: {error}") from error
            raise
        except Exception as error:
            if _is_last(context):
                self.record_failure(context, error)
            raise

    def understood(self, context: AirflowContext, error: TrainyardError) -> TrainyardError:
        """What a pod failed of, as the stage's `understand` sees it; as it is where the stage has none."""
        understand = getattr(self.module, "understand", None)
        if understand is None:
            return error
        ctx, release = self.open(context)
        found: TrainyardError = understand(ctx, release, error)
        return found

    def record_failure(self, context: AirflowContext, error: BaseException) -> None:
        try:
            ctx, release = self.open(context)
            ctx.fail(release, self.task_id, error)
        except Exception:
            self.log.exception("The failure could not be written into the record.")

    def close(self, context: AirflowContext, ctx: Context, release: Release, result: Done | Skip) -> None:
        """Writes what a stage said into the record, the log and XCom `note`. Skips the task where it did
        nothing."""
        from trainyard.stages.context import Skip

        ctx.end(release, self.task_id, result)
        self.log.info("%s", result.note)
        context["ti"].xcom_push(key=NOTE, value=result.note)
        if isinstance(result, Skip):
            raise AirflowSkipException(result.note)


def stage_module(stage: str) -> Any:
    return import_module(stage if "." in stage else f"trainyard.stages.{stage}")


def _is_last(context: AirflowContext) -> bool:
    ti = context["ti"]
    return ti.max_tries is None or ti.try_number > ti.max_tries
