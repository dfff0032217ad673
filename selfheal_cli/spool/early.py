"""Labels that came before their row: kept for a while, and joined when the row is written.

The row may still be in the memory of the replica, or of the server's other process, that answered
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from selfheal_cli.spool.database import Transaction

KEPT = 600  # seconds
MOST = 100_000  # labels; of more the oldest are forgotten
# that a label came before, by whether the log is PostgreSQL's or a file
BEFORE = {
    True: f"since < now() - interval '{KEPT} seconds'",
    False: f"since < (julianday('now') - 2440587.5) * 86400.0 - {KEPT}",
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS early (
    request TEXT, place INTEGER NOT NULL, key TEXT, y INTEGER NOT NULL, caller TEXT NOT NULL,
    at REAL NOT NULL, since REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0)
);
CREATE INDEX IF NOT EXISTS early_by_request ON early (request);
CREATE INDEX IF NOT EXISTS early_by_key ON early (key);
"""
# labels that find no row wait until all rows that are being written are there, or are not yet begun
APPENDING = "SELECT pg_advisory_xact_lock_shared(hashtext(current_schema()))"
WAITING = "SELECT pg_advisory_xact_lock(hashtext(current_schema()))"
# two who tell labels of the same rows in another order would each wait for the other
LABELLING = "SELECT pg_advisory_xact_lock(hashtext(current_schema() || ' labels'))"
TAKEN = "RETURNING place, key, y, caller, at, rowid"


def rows_of(
    transaction: Transaction, find: Callable[[], list[tuple[int, int] | None]]
) -> list[tuple[int, int] | None]:
    """The rows of labels, those among them that are just being written; nobody else tells labels
    until the transaction has ended.
    """
    transaction.execute(LABELLING)
    rows = find()
    if None in rows:
        transaction.execute(WAITING)
        rows = find()
    return rows


def keep(
    transaction: Transaction,
    row: tuple[str | None, int, str | None],
    y: int,
    caller: str,
    at: float,
    *,
    shared: bool,
) -> None:
    """Keep the label of a row, by request and place or by key; older ones are forgotten."""
    transaction.execute(f"DELETE FROM early WHERE {BEFORE[shared]}")  # noqa: S608
    transaction.execute(
        "DELETE FROM early WHERE rowid <= (SELECT max(rowid) FROM early) - ?", (MOST,)
    )
    transaction.execute(
        "INSERT INTO early (request, place, key, y, caller, at) VALUES (?, ?, ?, ?, ?, ?)",
        (*row, y, caller, at),
    )


def some_wait(transaction: Transaction) -> bool:
    """Whether there are any."""
    return transaction.execute("SELECT 1 FROM early LIMIT 1").fetchone() is not None


def waiting_for(
    transaction: Transaction, request: str, rows: int, keys: Sequence[str]
) -> Iterator[tuple[int, int, str, float]]:
    """Take those that are for a request's rows, in the order in which they came: place, class,
    caller and time.
    """
    told = transaction.execute(
        f"DELETE FROM early WHERE request = ? AND place >= 0 AND place < ? {TAKEN}",  # noqa: S608
        (request, rows),
    ).fetchall()
    places = {key: place for place, key in enumerate(keys)}
    for key in places:
        query = f"DELETE FROM early WHERE key = ? {TAKEN}"  # noqa: S608
        told += transaction.execute(query, (key,)).fetchall()
    for place, key, y, caller, at, _ in sorted(told, key=lambda row: row[-1]):
        yield (place if key is None else places[key]), y, caller, at
