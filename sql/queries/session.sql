-- What sessions of ours are told that no save needs.

-- bound_lock_wait: Wait for a lock no longer than this, so that what holds it shows as a cause.
SELECT set_config('lock_timeout', %(timeout_ms)s, false)
