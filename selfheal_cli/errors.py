"""Every error that selfheal raises on purpose; each class carries its exit code.

::

    SelfhealError                    1
    ├── ConfigurationError           3   an option, a configuration or a policy file
    │   ├── OptionError              2   an option that does not fit what stands beside it
    │   ├── PolicyError              3
    │   ├── RuleError                3
    │   ├── ModelError               3   a model that cannot be wrapped or built
    │   ├── PartError                3   a part of another package, such as a monitor, that fails
    │   └── DataError                3   the rows: file, row, column, value
    │       ├── NoRows               3
    │       ├── WrongShape           3   rows of another width, or labels that are not one a row
    │       ├── MissingColumn        3
    │       ├── UnknownClass         3
    │       └── RepeatedId           3   two rows of one call under the same id
    ├── RegistryError                4   the registry or one of its versions
    │   ├── RegistryUnreachable      4
    │   ├── NoStore                  4   nothing was stored there yet
    │   ├── NotAllowed               4   the server does not know the caller, or permits less
    │   ├── VersionNotFound          4
    │   ├── VersionCorrupt           4   missing file, other bytes than recorded
    │   ├── ConflictError            4   somebody else moved the alias first
    │   ├── LeaseHeld                4   another run heals this model
    │   ├── RegistryRestored         4   it knows less than it did: an earlier state came back
    │   └── ApprovalNeeded           4   four eyes: one person is not enough
    ├── StorageError                 4   a file or folder: disk full, no rights
    ├── NoAnswer                     4   from a server
    ├── RequestRefused               1   what a caller of the server asked for
    ├── Closed                       1   a model of a program that was closed
    ├── AuditFailed                  4   a signed audit that is not what it says
    ├── EventLogError                4   the log is missing, cut short or edited
    ├── NoCandidateError             5
    └── HealError                    6
        ├── HealRefused              6   the recipe's assumption does not hold on the rows
        └── DrillFailed              6
"""

from selfheal_cli.masking import masked


def one_line(error: BaseException) -> str:
    """What an exception says, in one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class SelfhealError(Exception):
    """Base class: what went wrong, where, and what to do, in one line.

    Whatever of others is quoted in it, a driver's message or an address, is kept without secrets.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class ConfigurationError(SelfhealError):
    """A setting that selfheal cannot work with."""

    exit_code = 3


class OptionError(ConfigurationError):
    """An option or a variable that does not fit the others: it would be ignored."""

    exit_code = 2


class PolicyError(ConfigurationError):
    """A policy file with an unknown key, a wrong type or a value out of range."""


class RuleError(ConfigurationError):
    """A domain rule that does not parse or names what the data does not have."""


class ModelError(ConfigurationError):
    """A model that cannot be wrapped, or that cannot be built again here."""


class PartError(ConfigurationError):
    """A part of another package, or of the program, that raised or gave what no such part may."""


class DataError(ConfigurationError):
    """Rows that cannot be read, or do not say what they must."""


class NoRows(DataError):
    """No row, where at least one is needed."""


class WrongShape(DataError):
    """Rows of another width than the model takes, or labels that are not one a row."""


class MissingColumn(DataError):
    """A table without a column that the model takes, or with two of that name."""


class UnknownClass(DataError):
    """A label that is none of the model's classes."""


class RepeatedId(DataError):
    """Two rows of one call under the same id."""


class RegistryError(SelfhealError):
    """The registry refused, or holds something that it should not."""

    exit_code = 4


class RegistryUnreachable(RegistryError):
    """No answer from the tracking store."""


class NoStore(RegistryError):
    """There is no store where one was looked for; whoever only reads makes none."""


class NotAllowed(RegistryError):
    """A server that asks who the caller is, or does not permit what was asked."""


class VersionNotFound(RegistryError):
    """The registry has no such model or version."""


class VersionCorrupt(RegistryError):
    """A version whose file is gone or is not what was recorded."""


class ConflictError(RegistryError):
    """Somebody else came first: moved the alias, removes the version, or holds the model."""


class LeaseHeld(RegistryError):
    """Another run heals the model, or has taken the lease over."""


class RegistryRestored(RegistryError):
    """The registry was put back to an earlier state, so that numbers mean something else."""


class ApprovalNeeded(RegistryError):
    """The policy wants a second person, who did not propose it."""


class StorageError(SelfhealError):
    """A file that could not be written: the disk is full, or the rights are missing."""

    exit_code = 4


class NoAnswer(SelfhealError):
    """A server that does not answer, or not as 'selfheal serve' does."""

    exit_code = 4


class RequestRefused(SelfhealError):
    """A request that is not answered: ``status`` and ``code`` for the caller, and the counted
    ``reason``. The message holds nothing of the caller's data; ``caller`` is the name of its
    token, where that is known.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "BAD_REQUEST",
                 reason: str = "malformed", caller: str = "") -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.code = code
        self.reason = reason
        self.caller = caller


class Closed(SelfhealError):
    """A model of a program that was closed, so that it takes no more rows."""


class AuditFailed(SelfhealError):
    """A signed audit that is not what it says."""

    exit_code = 4


class EventLogError(SelfhealError):
    """An event log that is missing, cut short or edited."""

    exit_code = 4


class NoCandidateError(SelfhealError):
    """No version fits what was asked for."""

    exit_code = 5


class HealError(SelfhealError):
    """A heal that did not end in usable weights."""

    exit_code = 6


class HealRefused(HealError):
    """A heal without labels whose declared assumption does not hold on the rows."""


class DrillFailed(HealError):
    """The rollback drill did not restore what it should have."""
