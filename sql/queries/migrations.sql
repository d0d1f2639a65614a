-- What `processor migrate` asks and notes.

-- lock: Let one process migrate at a time.
SELECT pg_advisory_lock(%(key)s)

-- unlock: Let the next one.
SELECT pg_advisory_unlock(%(key)s)

-- begun: Whether anything was ever applied here.
SELECT to_regclass('migration') IS NOT NULL

-- applied: What was applied.
SELECT number, name, checksum, breaks_older_code FROM migration ORDER BY number

-- note: Note a migration as applied, in its own transaction.
INSERT INTO migration (number, name, checksum, breaks_older_code)
VALUES (%(number)s, %(name)s, %(checksum)s, %(breaks_older_code)s)
