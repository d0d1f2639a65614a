-- The lock for retention, rebuilds and erasure: a second connection holds it in an open transaction. The transaction
-- reads and writes no rows, so it does not hold back VACUUM.

-- outlast_work: Let the transaction last for as long as the work does; not all of these are known to all servers.
SELECT set_config(name, '0', false)
FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')

-- lock: Be the one at work, until the transaction ends; an error if another is.
SELECT take_lock('books_lock', false)

-- is_held: An error if the session that holds the lock was ended.
SELECT 1
