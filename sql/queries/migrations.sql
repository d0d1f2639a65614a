-- Queries of `processor migrate`.

-- lock: Let one process migrate at a time, until the commit.
SELECT take_lock('migrate_lock', true)

-- lock_at_first: The same, before there is a table for it: this one any login can hold, too.
LOCK TABLE migration IN EXCLUSIVE MODE

-- bound_wait: Wait for each of the locks below no longer than this: all who come later wait as well.
SELECT set_config('lock_timeout', %(wait_ms)s, true)

-- holders: Which other sessions hold locks that we may have waited for.
SELECT DISTINCT pid, usename
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype IN ('relation', 'advisory') AND granted AND pid <> pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (locktype = 'advisory' OR relation IN (
    SELECT oid FROM pg_class WHERE relnamespace IN (
      to_regnamespace(quote_ident(current_schema())), to_regnamespace(quote_ident(left(current_schema(), 57) || '_locks')))))
ORDER BY pid
LIMIT 5

-- begun: Whether anything was ever applied here.
SELECT to_regclass('migration') IS NOT NULL

-- applied: What was applied.
SELECT number, name, checksum, breaks_older_code FROM migration ORDER BY number

-- note: Note a migration as applied, in its own transaction.
INSERT INTO migration (number, name, checksum, breaks_older_code)
VALUES (%(number)s, %(name)s, %(checksum)s, %(breaks_older_code)s)

-- validate_rejections: Promise of all rows what the history before 0.1.0 promised of later ones alone.
ALTER TABLE rejection VALIDATE CONSTRAINT rejection_holder_sized, VALIDATE CONSTRAINT rejection_body_cut

-- forget_history: Forget what was applied, to note what makes the same tables.
DELETE FROM migration
