"""The tables of a log in PostgreSQL; what their columns mean stands beside those of SQLite."""

from __future__ import annotations

FORMAT = 1
# where a log lies: a dump that is restored, an upgrade and a failover each give another text
PLACE = (
    "SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' "
    "|| left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' "
    "|| (SELECT oid FROM pg_database WHERE datname = current_database())::text || '/' "
    "|| to_regclass('log')::oid::text"
)
CREATE = """
CREATE SCHEMA IF NOT EXISTS SCHEMA_NAME;
CREATE TABLE log (
    one boolean PRIMARY KEY CHECK (one), format integer NOT NULL, identity bigint NOT NULL,
    place text NOT NULL, shift bigint NOT NULL
);
CREATE TABLE earlier (identity bigint PRIMARY KEY, until bigint NOT NULL);
CREATE FUNCTION horizon() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + shift) << 20
    FROM SCHEMA_NAME.log
$$;
CREATE FUNCTION next_number() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    place bigint := coalesce(nullif(current_setting('selfheal.place', true), ''), '0')::bigint;
    shift bigint := (SELECT l.shift FROM SCHEMA_NAME.log l);
BEGIN
    IF place >= 1 << 20 THEN
        RAISE EXCEPTION 'too many rows and labels in one transaction';
    END IF;
    PERFORM set_config('selfheal.place', (place + 1)::text, true);
    RETURN ((pg_current_xact_id()::text::bigint + shift) << 20) + place;
END
$$;
CREATE TABLE answered (
    number bigint PRIMARY KEY DEFAULT next_number(), request text UNIQUE NOT NULL,
    rows integer NOT NULL, classes integer NOT NULL, columns bytea NOT NULL,
    probabilities bytea NOT NULL, snapshot text NOT NULL, threshold double precision NOT NULL,
    at double precision NOT NULL
);
CREATE TABLE keys (key text PRIMARY KEY, answered bigint NOT NULL, place integer NOT NULL);
CREATE INDEX keys_of ON keys (answered);
CREATE TABLE shared (request text PRIMARY KEY);
CREATE TABLE labels (
    number bigint PRIMARY KEY DEFAULT next_number(), answered bigint NOT NULL,
    place integer NOT NULL, y integer NOT NULL, UNIQUE (answered, place)
);
CREATE TABLE told_labels (
    answered bigint NOT NULL, place integer NOT NULL, y integer NOT NULL, caller text NOT NULL,
    at double precision NOT NULL, rowid bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX told_labels_of ON told_labels (answered, place);
CREATE TABLE early (
    request text, place integer NOT NULL, key text, y integer NOT NULL, caller text NOT NULL,
    at double precision NOT NULL, since timestamptz NOT NULL DEFAULT now(),
    rowid bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX early_by_request ON early (request);
CREATE INDEX early_by_key ON early (key);
CREATE TABLE fence (one integer PRIMARY KEY, lease bigint NOT NULL);
CREATE TABLE taken (
    lease bigint NOT NULL, run text NOT NULL, batch integer NOT NULL, cursor text NOT NULL,
    safe integer NOT NULL, PRIMARY KEY (run, batch)
);
CREATE TABLE turn (
    one integer PRIMARY KEY, holder text NOT NULL, until double precision NOT NULL
);
CREATE TABLE published (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, snapshot text NOT NULL,
    version integer, threshold double precision NOT NULL, base text NOT NULL, sha256 text NOT NULL,
    adapter bytea NOT NULL, reason text NOT NULL, at double precision NOT NULL
);
CREATE TABLE told (topic text PRIMARY KEY, data text NOT NULL, at double precision NOT NULL);
CREATE TABLE orders (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL,
    argument text NOT NULL, taken double precision, answer text, at double precision NOT NULL
);
CREATE FUNCTION tell_published() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA, '');
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_published AFTER INSERT OR UPDATE ON published
    FOR EACH STATEMENT EXECUTE FUNCTION tell_published();
"""
