-- What sessions of ours are told that no save needs.

-- bound_lock_wait: Wait for a lock no longer than this, so that what holds it shows as a cause.
SELECT set_config('lock_timeout', %(timeout_ms)s, false)

-- missing_rights: Those rights that saving needs and this role lacks, as words of a GRANT.
SELECT wanted.privilege || ' ON ' || wanted.relation AS missing
FROM (VALUES
  ('registry', 'SELECT'), ('tenant', 'SELECT'), ('event_schema', 'SELECT'), ('message', 'SELECT'),
  ('message', 'INSERT'), ('duplicate', 'SELECT'), ('duplicate', 'INSERT'), ('rejection', 'SELECT'),
  ('rejection', 'INSERT')
) AS wanted (relation, privilege)
WHERE NOT coalesce(has_table_privilege(to_regclass(wanted.relation)::oid, wanted.privilege), false)
ORDER BY missing
