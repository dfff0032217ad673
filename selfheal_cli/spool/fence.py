"""The fence of a log: nothing that carries the number of an earlier lease is written any more.

Who took a lease raises it. A number is the lease's entry in the model's journal, so the later lease
has the higher one (https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html).
"""

from __future__ import annotations

from selfheal_cli.errors import LeaseHeld
from selfheal_cli.spool.database import LogDatabase, Transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS fence (one INTEGER PRIMARY KEY, lease INTEGER NOT NULL);
"""
BEGUN = "INSERT INTO fence VALUES (1, 0) ON CONFLICT DO NOTHING"


def fence_of(database: LogDatabase) -> int:
    """The highest lease that has written; 0 where none has."""
    rows = database.all("SELECT lease FROM fence")
    return int(rows[0][0]) if rows else 0


def set_fence(database: LogDatabase, seen: int, lease: int) -> bool:
    """Set it for the holder of a lease, who looked at the registry since it was ``seen``; False
    where it was set meanwhile. That may lower it: the registry may be another one.
    """
    with database.writing() as transaction:
        transaction.execute(BEGUN)
        query = "UPDATE fence SET lease = ? WHERE lease = ?"
        return transaction.execute(query, (lease, seen)).rowcount == 1


def pass_fence(transaction: Transaction, lease: int) -> None:
    """Raises `LeaseHeld` where a later lease has written; what follows in the transaction is not
    written then, and none that is earlier writes after it.
    """
    transaction.execute(BEGUN)
    query = "UPDATE fence SET lease = ? WHERE lease <= ?"
    if not transaction.execute(query, (lease, lease)).rowcount:
        raise LeaseHeld(
            f"lease {lease} was taken over, and the log takes nothing from it any more; this "
            "process writes nothing"
        )
