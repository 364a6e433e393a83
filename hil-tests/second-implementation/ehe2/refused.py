"""What this program refuses by its own judgement, as opposed to what it stumbles over."""

from __future__ import annotations

RUN_MALFORMED = 1
BAD_SIGNATURE = 2
STRAND_GAP = 3
EVENT_MALFORMED = 4
EVENT_OUT_OF_PLACE = 5
EVENT_REPEATED = 6
KIND_NOT_ALLOWED = 7
ROOM_UNKNOWN = 10
ROOM_EXISTS = 11
NOT_INVITED = 12
GRANT_EXPIRED = 13
GRANT_REVOKED = 14
EPOCH_NOT_COVERED = 15
HOUR_NOT_COVERED = 16
NOT_OWNER = 17
WRAP_MISSING = 18
WRAP_MISMATCH = 19
CONTROL_OUT_OF_SEQUENCE = 20
CONTROL_MALFORMED = 21
BAD_KEY = 22
GRANT_UNKNOWN = 23
LIMIT_REACHED = 24
OTHER_ALLIANCE = 25
DELEGATION_ENDED = 26
NOT_DELEGATED = 27
BEYOND_OWN_RIGHTS = 28
NOT_RECOVERY = 29
RECOVERY_SET = 30
NOT_POSSESSED = 31
DELEGATION_UNKNOWN = 32
KEYS_REPLACED = 33
REQUEST_MALFORMED = 40
REQUEST_STALE = 41
REQUEST_REPEATED = 42
WRONG_SHARD = 60
FRAME_MALFORMED = 63

# Section 11's table: a Refused response with another number is no message of the protocol.
CODES = frozenset([*range(1, 8), *range(10, 34), *range(40, 43), *range(60, 68)])


class Refused(Exception):
    """The bytes break a rule. `code` is the number of section 11, where the rule names one."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason if code is None else f"{reason} ({code})")
        self.reason = reason
        self.code = code


def require(holds: bool, reason: str, code: int | None = None) -> None:
    if not holds:
        raise Refused(reason, code)


class refusing_with:
    """Gives refusals that are raised within the number of the place where the bytes stood; None where it has none."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refused):
            raise Refused(error.reason, self.code) from error
