-- What `processor check` asks of the database. Nothing here changes anything, not even a setting:
-- behind a pooler the session might be somebody else's next.

-- server: What the server is, and the settings on which durability stands, as this role's sessions get them.
SELECT
  current_setting('server_version_num')::int AS version_num,
  current_setting('server_version') AS version,
  current_setting('server_encoding') AS encoding,
  current_setting('fsync') = 'on' AS fsync,
  current_setting('full_page_writes') = 'on' AS full_page_writes,
  current_setting('synchronous_commit') AS synchronous_commit,
  current_setting('transaction_read_only') = 'on' AS read_only,
  pg_is_in_recovery() AS standby,
  current_database() AS database,
  current_user AS role,
  current_schema() AS schema

-- clock: The time by the server's clock, now and not at the begin of the transaction.
SELECT clock_timestamp() AS at

-- backend: Which server process answers; its start says apart two servers that use the same number.
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- missing_rights: Those rights that this role lacks of the ones that run, replay and audit need.
SELECT wanted.relation, wanted.privilege
FROM (VALUES
  ('migration', 'SELECT'), ('registry', 'SELECT'), ('tenant', 'SELECT'), ('event_type', 'SELECT'),
  ('event_schema', 'SELECT'), ('message', 'SELECT'), ('message', 'INSERT'), ('duplicate', 'SELECT'),
  ('duplicate', 'INSERT'), ('rejection', 'SELECT'), ('rejection', 'INSERT'), ('rejection', 'UPDATE'),
  ('removal', 'SELECT')
) AS wanted (relation, privilege)
WHERE NOT coalesce(has_table_privilege(to_regclass(wanted.relation)::oid, wanted.privilege), false)
UNION ALL
SELECT 'registry_version_held()', 'EXECUTE'
WHERE NOT coalesce(has_function_privilege(to_regprocedure('registry_version_held()')::oid, 'EXECUTE'), false)
ORDER BY relation, privilege

-- excess_rights: What this role could do that a processor never does.
SELECT
  rolsuper AS superuser,
  coalesce(pg_has_role((SELECT relowner FROM pg_class WHERE oid = to_regclass('message')), 'MEMBER'), false) AS owner,
  coalesce(has_table_privilege(to_regclass('message')::oid, 'UPDATE, DELETE, TRUNCATE'), false) AS may_change_messages
FROM pg_roles
WHERE rolname = current_user

-- registry_size: How many tenants may send, and how many schemas there are to validate by.
SELECT
  (SELECT count(*) FROM tenant WHERE status = 'active') AS tenants,
  (SELECT count(*) FROM event_schema) AS schemas
