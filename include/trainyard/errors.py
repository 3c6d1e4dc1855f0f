"""The errors of Trainyard. Two words decide what Airflow does with a failed task.

TrainyardError
├── PermanentError            fail now: trying again cannot help
│   ├── Refused               the request breaks a rule (field, value, rule, remedy)
│   ├── NotFound              what was asked for does not exist
│   ├── Forbidden             the cluster does not grant the account what it asked for
│   ├── Conflict              somebody else changed it first, and their change stands
│   ├── LeaseLost             another holder took the model's lease: this one may change nothing
│   ├── CorruptArtifact       bytes differ from their digest
│   ├── Unsigned              no trusted key signed it, or it was altered since
│   ├── PodFailed             a pod ended badly (reason, exit code, last log lines)
│   │   ├── CompilerFailed
│   │   ├── OutOfMemory
│   │   ├── ImageUnavailable
│   │   └── Unschedulable
│   ├── CanaryNotReady        the deadline passed or the server cannot start
│   ├── DeviceUnhealthy       Neuron hardware or runtime errors
│   ├── VerdictFailed         measured, and worse than allowed
│   └── Undecided             measured as long as allowed, and still too little to judge
└── TransientError            retry with back-off
    ├── LeaseHeld             another release of the model is running
    ├── NoCapacity            EC2 or the NodePool has nothing to give now
    ├── ClusterUnavailable    the Kubernetes API did not answer properly
    ├── StoreUnavailable      S3 did not answer properly
    ├── HubUnavailable        the Hub did not answer properly
    ├── RegistryUnavailable   the OCI registry did not answer properly
    ├── BedrockUnavailable    Bedrock did not say how its models stand
    ├── CompileStalled        a compile waits for nobody, or takes longer than its like ever did
    └── Inconclusive          measured too little to judge
"""

from __future__ import annotations

from dataclasses import dataclass


class TrainyardError(Exception):
    """Base of everything that Trainyard raises on purpose. `str(error)` is written for people."""


class PermanentError(TrainyardError):
    """Trying again cannot help; somebody has to change something."""


class TransientError(TrainyardError):
    """Trying again may help.

    retry_after: seconds that the other side asked us to wait, if it said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Problem:
    """One broken rule: which field, its value, the rule, and a way out."""

    field: str
    value: object
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value!r}: {self.rule}. {self.remedy}"


class Refused(PermanentError):
    """A request that breaks rules. Carries every broken rule at once, not only the first."""

    def __init__(self, problems: list[Problem] | Problem) -> None:
        self.problems = problems if isinstance(problems, list) else [problems]
        super().__init__("\n".join(str(problem) for problem in self.problems))


class NotFound(PermanentError):
    pass


class Forbidden(PermanentError):
    pass


class Conflict(PermanentError):
    pass


class LeaseLost(PermanentError):
    pass


class CorruptArtifact(PermanentError):
    pass


class Unsigned(PermanentError):
    pass


class PodFailed(PermanentError):
    """A pod ended badly.

    reason: the container's or pod's reason (`Error`, `OOMKilled`, `DeadlineExceeded`, ...).
    exit_code: of the container that failed, if one ran.
    log: its last lines, newest last.
    """

    def __init__(
        self, message: str, *, reason: str = "", exit_code: int | None = None, log: tuple[str, ...] = ()
    ) -> None:
        self.reason, self.exit_code, self.log = reason, exit_code, log
        tail = "\n".join(f"  | {line}" for line in log)
        super().__init__(f"{message}\nLast log lines:\n{tail}" if tail else message)


class CompilerFailed(PodFailed):
    pass


class OutOfMemory(PodFailed):
    pass


class ImageUnavailable(PodFailed):
    pass


class Unschedulable(PodFailed):
    pass


class CanaryNotReady(PermanentError):
    pass


class DeviceUnhealthy(PermanentError):
    pass


class VerdictFailed(PermanentError):
    pass


class Undecided(PermanentError):
    pass


class LeaseHeld(TransientError):
    pass


class NoCapacity(TransientError):
    pass


class ClusterUnavailable(TransientError):
    pass


class StoreUnavailable(TransientError):
    pass


class HubUnavailable(TransientError):
    pass


class RegistryUnavailable(TransientError):
    pass


class BedrockUnavailable(TransientError):
    pass


class CompileStalled(TransientError):
    pass


class Inconclusive(TransientError):
    pass
