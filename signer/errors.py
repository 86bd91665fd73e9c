"""The one error tree: a stable code, whether another try may help, and a message fit for a stranger.

A message never contains input, a PIN, a payload or key material: it ends up in HTTP answers, quarantine entries,
logs and audit records. Edges translate `code` and `retryable` into their own terms (HTTP status, SQS decision).
"""

from typing import ClassVar, Self


class SignerError(Exception):
    """Base of every error this service raises on purpose; anything else is a defect and treated as unknown."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    remedy: ClassVar[str] = "A defect of the service: report it with the `request_id`, under which the log has more."
    retry_after_s: float | None = None
    """When another try may help, where that is known."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def without_frames(self) -> Self:
        """Give it, for keeping, without the frames it came through: they hold whole documents."""
        self.__context__ = None
        return self.with_traceback(None)


# --- what came in -----------------------------------------------------------------------------------------------


class InvalidInputError(SignerError):
    """The request or batch can never be signed as it is: a member is absent, unknown or malformed."""

    code = "invalid_input"
    remedy = "Correct the request; the same one is refused again."


class InvalidJsonError(InvalidInputError):
    """Not UTF-8, not JSON, nested too deeply, NaN, a lone surrogate, or an integer beyond 2^53-1 (RFC 7493)."""

    code = "invalid_json"


class DuplicateMemberError(InvalidInputError):
    """A JSON object names one member twice: two readers could see two different transactions."""

    code = "duplicate_member"


class UnknownSchemaError(InvalidInputError):
    """`schema` is absent or not one this version reads."""

    code = "unknown_schema"


class EmptyBatchError(InvalidInputError):
    """A settlement batch without transactions."""

    code = "empty_batch"


class TooManyTransactionsError(InvalidInputError):
    """A settlement batch beyond the configured number of transactions."""

    code = "too_many_transactions"
    remedy = "Split the batch."


class DuplicateTransactionError(InvalidInputError):
    """One `transaction_id` stands twice in one batch."""

    code = "duplicate_transaction_id"


class InvalidTransactionError(InvalidInputError):
    """A transaction carries no content to sign, two contents, or one of the wrong type or size."""

    code = "invalid_transaction"


class TransactionIdRequiredError(InvalidInputError):
    """The key is set to sign only what names its transaction."""

    code = "transaction_id_required"
    remedy = "Give `transaction_id`, which makes the request one that can safely be sent again."


class InvalidBase64Error(InvalidInputError):
    """Not standard base64 with padding (RFC 4648 section 4)."""

    code = "invalid_base64"


class UnknownAlgorithmError(InvalidInputError):
    """Not an algorithm of `signatures.ALGORITHMS`; there is no default for an unknown name."""

    code = "unknown_algorithm"


class UnknownKeyError(InvalidInputError):
    """The policy grants a key of this alias, and none is configured."""

    code = "unknown_key"
    remedy = "Ask whoever runs the service: its policy grants what its settings do not have."


class BodyTooLargeError(InvalidInputError):
    """A request body beyond the configured limit."""

    code = "body_too_large"
    remedy = "Send less at once: split the batch, or send the digest instead of the content."


class BatchTooLargeError(InvalidInputError):
    """The signed batch would not fit into the outbound queue's largest message."""

    code = "batch_too_large"
    remedy = "Split the batch, or set up `sqs.payloads` for large bodies."


class InvalidPayloadPointerError(InvalidInputError):
    """The message says that its body lies elsewhere, but not where or how large it is."""

    code = "invalid_payload_pointer"
    remedy = "Send the pointer as the Amazon SQS Extended Client does."


class PayloadNotAllowedError(InvalidInputError):
    """The message points at a place that bodies are not fetched from."""

    code = "payload_not_allowed"
    remedy = "Store bodies where `sqs.payloads.accept` allows, or extend that setting."


class PayloadTooLargeError(InvalidInputError):
    """The body that the message points at is beyond the configured limit."""

    code = "payload_too_large"


class PayloadMismatchError(InvalidInputError):
    """What lies there is not what the message says: another size, another hash, or not what was stored."""

    code = "payload_mismatch"
    remedy = "Store the body again and send a new message: what lies there is not what was announced."


class PayloadAbsentError(InvalidInputError):
    """Nothing lies where the message points."""

    code = "payload_absent"
    remedy = "Store the body before its pointer is sent, and keep it for as long as the queue keeps messages."


class DigestNotIndexedError(InvalidInputError):
    """This ledger cannot be asked by digest: its table lacks the index for that."""

    code = "digest_not_indexed"
    remedy = "Ask by `transaction_id`, or have the index made."


# --- who may, and what was signed before --------------------------------------------------------------------------


class UnauthenticatedError(SignerError):
    """Nobody knows who is asking: credentials are absent, or they prove nothing."""

    code = "unauthenticated"
    remedy = "Send credentials that this service takes: see docs/authentication.md."


class NotAuthorisedError(SignerError):
    """The policy does not let this caller use this key (default deny)."""

    code = "not_authorised"
    remedy = "Compare the alias with `GET /v1/keys`, or ask who keeps the policy: `signer policy explain` says why."


class KilledError(SignerError):
    """A person stopped it by the kill switch; a machine need not ask again, a person says when it goes on."""

    code = "killed"
    remedy = "Do not try again by yourself: a person stopped it, and a person says when it goes on."


class KeyKilledError(KilledError):
    """A person stopped this key by the kill switch, and nothing is signed with it until it is revived."""

    code = "key_killed"


class CallerKilledError(KilledError):
    """A person stopped this caller by the kill switch, and nothing is signed for it until it is revived."""

    code = "caller_killed"


class RateLimitedError(SignerError):
    """The caller has had as many transactions as the policy grants it for now."""

    code = "rate_limited"
    retryable = True
    remedy = "Wait for `Retry-After`; if that happens in ordinary use, ask for a higher limit."

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ConflictError(SignerError):
    """This `(key alias, transaction_id)` is bound to another digest or algorithm: sign-once refuses the second."""

    code = "transaction_conflict"
    remedy = (
        "Never send it again under this id. Find out what was signed (`signer ledger find`), and why two "
        "contents have one name."
    )


class ClaimInProgressError(SignerError):
    """Another request is signing this very transaction at this moment."""

    code = "transaction_in_progress"
    retryable = True
    remedy = "Send the same request again after `Retry-After`: it gets the signature that is being made."


class ClaimLostError(SignerError):
    """Another owner took the claim over while this one was signing; this one's signature is not released."""

    code = "claim_lost"
    retryable = True
    remedy = "Send the same request again: it gets the signature of whoever took over."


class BatchAbandonedError(SignerError):
    """A sibling in an all-or-nothing batch was refused, so this transaction was not signed either."""

    code = "batch_abandoned"
    retryable = True
    remedy = "Mend its siblings, and send the batch again."


# --- what the service stands on -----------------------------------------------------------------------------------


class UnavailableError(SignerError):
    """Something the service depends on does not answer now."""

    code = "unavailable"
    retryable = True
    remedy = "Send the same request again after `Retry-After`."


class OverloadedError(UnavailableError):
    """Admission is bounded and full, or too many bodies of this caller, or of all, are on their way."""

    code = "overloaded"
    remedy = "Send the same request again after `Retry-After`, and fewer at once."


class DeadlineExceededError(UnavailableError):
    """The request's deadline passed before its signature could be made."""

    code = "deadline_exceeded"
    remedy = "Send the same request again: if a signature was made after all, it is that one."


class HsmUnavailableError(UnavailableError):
    """The HSM cannot sign now: connection, device, session or login lost."""

    code = "hsm_unavailable"
    remedy = "Send the same request again after `Retry-After`. Whoever runs the service: docs/recovery.md."


class PoolExhaustedError(HsmUnavailableError):
    """No signing session came free before the deadline."""

    code = "hsm_busy"


class KeyNotReadyError(HsmUnavailableError):
    """No version of this key may sign at this moment: its time has not come, or it has not proven itself."""

    code = "key_not_ready"
    remedy = "Send the same request again later. Whoever runs the service: `signer keys rotation`."


class LedgerUnavailableError(UnavailableError):
    """The sign-once ledger cannot record a claim or a result."""

    code = "ledger_unavailable"
    remedy = "Send the same request again after `Retry-After`. Whoever runs the service: docs/ledger.md."


class AuditUnavailableError(UnavailableError):
    """The audit log cannot make a record durable; nothing is released without one."""

    code = "audit_unavailable"
    remedy = "Send the same request again after `Retry-After`. Whoever runs the service: docs/audit.md."


class SignatureInvalidError(SignerError):
    """The HSM returned a signature that does not verify; it was withheld."""

    code = "signature_invalid"
    retryable = True
    remedy = "Tell whoever runs the service at once: the HSM is not to be trusted. See docs/recovery.md."


# --- refusing to start --------------------------------------------------------------------------------------------


class ConfigurationError(SignerError):
    """Settings are absent, malformed or contradict one another."""

    code = "configuration"
    remedy = "Correct the settings: `signer check` says what is wrong."


class HsmConfigurationError(ConfigurationError):
    """The PKCS#11 module cannot be used at all: absent, cannot lock, or no token with this label."""

    code = "hsm_configuration"


class LoginRefusedError(ConfigurationError):
    """The token refused the PIN or the user. Never tried twice: five wrong PINs lock a CloudHSM user."""

    code = "login_refused"
    remedy = "Put the right PIN into `hsm.pin_file` before the next start: five wrong ones lock the user."


class KeyRefusedError(ConfigurationError):
    """A configured key is not exactly the key it should be."""

    code = "key_refused"
    remedy = "Compare the key with docs/operating.md: `signer keys attest` says what was found."


class AlreadyRunningError(ConfigurationError):
    """Another process holds this ledger or audit log."""

    code = "already_running"
    remedy = "End the other process, or give this one files of its own."


class AuditBrokenError(ConfigurationError):
    """The audit chain on disk contradicts itself; continuing it would hide that."""

    code = "audit_broken"
    remedy = "Leave the files as they are and find out what happened: `signer audit verify`. See docs/audit.md."
