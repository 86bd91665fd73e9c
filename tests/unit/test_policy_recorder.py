"""What became of the policy is on record once, whatever comes of it afterwards."""

import pytest
from prometheus_client import CollectorRegistry

from signer import logs
from signer.metrics import Metrics
from signer.policy_recorder import Noted, PolicyRecorder
from signer.ports import AuditEntry
from tests.simulators import SimulatedAuditLog

NOTED = Noted((AuditEntry("2028-03-08T12:00:00.000000Z", "policy.changed", "done"),))


def test_what_is_on_record_is_not_recorded_again() -> None:
    """If what depends on it fails, that is a defect; the audit log is not filled over it four times a second."""

    def fail(_noted: Noted) -> None:
        raise ZeroDivisionError

    audit, metrics = SimulatedAuditLog(), Metrics(CollectorRegistry())
    recorder = PolicyRecorder(audit, fail, logs.get("test"), metrics.policy.unrecorded)
    recorder.note(NOTED)
    with pytest.raises(ZeroDivisionError):
        recorder.record()
    assert recorder.record()
    assert len(audit.entries) == 1
    assert metrics.registry.get_sample_value("signer_policy_unrecorded") == 0
