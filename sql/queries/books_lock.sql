-- How one session at a time removes old rows or rebuilds totals: a second session of it holds a lock in a transaction
-- that stays open. That transaction reads and writes nothing, so it keeps VACUUM from nothing.

-- outlast_work: Let the transaction last for as long as the work does; not all of these are known to all servers.
SELECT set_config(name, '0', false)
FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')

-- lock: Be the one at work, until the transaction ends; an error if another is.
SELECT take_lock('books_lock', false)

-- is_held: An error if the session that holds the lock was ended.
SELECT 1
