-- Queries of `processor check`. No query changes data or settings: behind a connection pool, another client may use
-- the session next.

-- $locks_schema: The schema of the tables that are only locked; by its name, since a role may lack the right to call locks_schema().
to_regnamespace(quote_ident(left(current_schema(), 57) || '_locks'))

-- $without_role: What a role can do that is not there: nothing, and no error.
WHEN role <> 'public' AND to_regrole(quote_ident(role)) IS NULL THEN false

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

-- missing_rights: Those of the wanted rights that this role lacks, with tables and with functions. A function of the server is named without its arguments, which change with releases.
SELECT wanted.relation, wanted.privilege
FROM unnest(%(relations)s::text[], %(privileges)s::text[]) AS wanted (relation, privilege)
WHERE NOT coalesce(
  CASE
    WHEN wanted.privilege = 'EXECUTE' AND wanted.relation LIKE 'pg_%%' THEN (
      SELECT bool_and(has_function_privilege(oid, 'EXECUTE')) FROM pg_proc
      WHERE proname = wanted.relation AND pronamespace = 'pg_catalog'::regnamespace)
    WHEN wanted.privilege = 'EXECUTE' THEN has_function_privilege(to_regprocedure(wanted.relation)::oid, 'EXECUTE')
    WHEN wanted.privilege LIKE 'UPDATE (%%' THEN has_column_privilege(
      to_regclass(wanted.relation)::oid, substring(wanted.privilege FROM '\((.*)\)'), 'UPDATE')
    ELSE (
      SELECT bool_and(has_table_privilege(oid, wanted.privilege) AND has_schema_privilege(relnamespace, 'USAGE'))
      FROM pg_class
      WHERE oid = to_regclass(wanted.relation) OR (relname = wanted.relation AND relnamespace = $locks_schema))
  END, false)
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

-- meters_missing: What active meters missed within the last day: where they look, why, how much in all, and when last. Amounts in quotes are no miss any more once they have been counted by a rebuild.
SELECT
  meter, meter.tenant_id,
  CASE WHEN reason LIKE 'group%%' THEN array_to_string(group_pointers, ' ')
    WHEN reason LIKE 'value%%' THEN value_pointer ELSE 'its time' END AS pointers,
  reason, text_amounts_from IS NOT NULL AS text_amounts,
  sum(messages)::bigint AS misses, max(last_at) AS last_at
FROM meter_miss JOIN meter USING (meter_id)
WHERE status = 'active' AND (reason <> 'value_not_a_number' OR NOT EXISTS (
  SELECT FROM usage_rebuild
  WHERE usage_rebuild.meter_id = meter.meter_id AND rebuilt_at >= text_amounts_from AND rebuilt_at >= last_at))
GROUP BY meter.meter_id, reason
HAVING max(last_at) > now() - interval '24 hours'
ORDER BY misses DESC, meter, reason
LIMIT %(kept)s

-- meters_active: How many meters count now, and whether voids can come in.
SELECT
  (SELECT count(*) FROM meter WHERE status = 'active') AS active,
  EXISTS (SELECT FROM event_schema WHERE event_type = 'void') AS voids_known

-- meters_alike: Handed-over meters that count the same messages in lines that look alike, since before the trigger that refuses them.
SELECT DISTINCT this.meter
FROM meter AS this
JOIN meter AS rival ON rival.meter_id <> this.meter_id
  AND (this.tenant_id IS NULL OR rival.tenant_id IS NULL OR rival.tenant_id = this.tenant_id)
WHERE this.status = 'active' AND this.is_handed_over AND has_pulse_lines(this)
  AND rival.status = 'active' AND rival.is_handed_over AND has_pulse_lines(rival)
ORDER BY this.meter

-- voids_idle: How many voids of the last weeks have met no message for a day.
SELECT count(*)
FROM voided
WHERE voided_at > now() - interval '35 days' AND voided_at < now() - interval '1 day'
  AND (
    SELECT 1 FROM message
    WHERE message.tenant_id = voided.tenant_id AND message.message_id = voided.message_id
      AND message.producer = voided.producer
    LIMIT 1) IS NULL

-- roles_present: Which of these roles there are.
SELECT rolname AS role FROM pg_roles WHERE rolname = ANY (%(roles)s::text[])

-- role_rights: What each of these roles can do in the end, by itself, by what it inherits or by what PUBLIC has: with the tables (a grant on one column counts; to update some columns is less than to update all), in the schema, and with the functions that are the owner's.
SELECT DISTINCT role, relation, privilege
FROM unnest(%(roles)s::text[]) AS role
CROSS JOIN unnest(%(relations)s::text[]) AS relation
CROSS JOIN unnest(%(privileges)s::text[]) AS privilege
JOIN pg_class ON pg_class.oid = to_regclass(relation) OR (relname = relation AND relnamespace = $locks_schema)
WHERE CASE
  $without_role
  WHEN privilege IN ('SELECT', 'INSERT', 'REFERENCES') THEN has_any_column_privilege(role, pg_class.oid, privilege)
  ELSE has_table_privilege(role, pg_class.oid, privilege)
END
UNION ALL
SELECT DISTINCT role, 'schema ' || nspname, 'USAGE'
FROM unnest(%(roles)s::text[]) AS role
JOIN pg_namespace ON pg_namespace.oid = $locks_schema
WHERE CASE
  $without_role
  -- A role that may lock one of its tables must be able to find it.
  ELSE has_schema_privilege(role, pg_namespace.oid, 'USAGE') AND NOT EXISTS (
    SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid AND has_table_privilege(role, pg_class.oid, 'DELETE'))
END
UNION ALL
SELECT DISTINCT role, relation, format('UPDATE (%%s)', attname)
FROM unnest(%(roles)s::text[]) AS role
CROSS JOIN unnest(%(relations)s::text[]) AS relation
JOIN pg_attribute ON attrelid = to_regclass(relation) AND attnum > 0 AND NOT attisdropped
WHERE CASE
  $without_role
  ELSE has_column_privilege(role, attrelid, attnum, 'UPDATE') AND NOT has_table_privilege(role, attrelid, 'UPDATE')
END
UNION ALL
SELECT DISTINCT role, 'schema ' || current_schema(), 'CREATE'
FROM unnest(%(roles)s::text[]) AS role
WHERE CASE
  $without_role
  ELSE has_schema_privilege(role, current_schema(), 'CREATE')
END
UNION ALL
SELECT DISTINCT role, name, 'EXECUTE'
FROM unnest(%(roles)s::text[]) AS role
CROSS JOIN (VALUES
  ('registry_changed()'), ('meter_begins_or_ends()'), ('pulse_lines_stay_clear()'), ('put_up_tenant_walls()'),
  ('put_up_row_walls()'), ('keep_rights_from_public()'), ('keep_locks_apart()'), ('keep_ddl_from_strangers()'),
  ('register_tenants(text,text[],bigint)'), ('registry_lock_key()'),
  ('remove_messages(tid[],timestamptz,timestamptz)'), ('remove_duplicates(tid,tid,timestamptz,integer)'),
  ('remove_rejections(tid,tid,timestamptz,timestamptz,integer)')
) AS functions (name)
WHERE CASE
  $without_role
  -- The privileges of every writer.
  WHEN role <> 'public' AND (name LIKE 'register_tenants%%' OR name = 'registry_lock_key()') AND pg_has_role(role, to_regrole('processor_writer')::oid, 'USAGE') THEN false
  -- The privileges for retention.
  WHEN role <> 'public' AND name LIKE 'remove%%' AND pg_has_role(role, to_regrole('processor_retention')::oid, 'USAGE') THEN false
  ELSE has_function_privilege(role, to_regprocedure(name)::oid, 'EXECUTE')
END

-- server_rights: What each of these roles can do in the end with the database, and with functions that could fill the disk or hold locks.
SELECT role, 'database' AS relation, privilege
FROM unnest(%(roles)s::text[]) AS role
CROSS JOIN unnest(ARRAY['CREATE', 'TEMPORARY']) AS privilege
WHERE CASE
  $without_role
  ELSE has_database_privilege(role, current_database(), privilege)
END
UNION
SELECT role, family, 'EXECUTE'
FROM unnest(%(roles)s::text[]) AS role
CROSS JOIN functions_kept_from_public()
WHERE CASE
  $without_role
  ELSE has_function_privilege(role, function, 'EXECUTE')
END
UNION
SELECT role, 'language ' || lanname, 'USAGE'
FROM unnest(%(roles)s::text[]) AS role
JOIN pg_language ON lanpltrusted AND lanispl
WHERE CASE
  $without_role
  ELSE has_language_privilege(role, lanname, 'USAGE')
END
UNION
SELECT 'public', 'all tables (by DDL)', 'LOCK'
WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'processor_ddl' AND evtenabled <> 'D')
UNION
SELECT 'public', 'tables that are only locked', 'LOCK'
WHERE to_regclass('registry_lock') IS NOT NULL

-- tenant_limits: The logins that read for a tenant, and which limits that they can't lift themselves are set for each. A role's own setting counts before the database's, and that before the server's.
SELECT
  member.rolname AS role,
  member.rolconnlimit >= 0 AS connections,
  coalesce(
    (SELECT split_part(setting, '=', 2)
    FROM pg_db_role_setting CROSS JOIN LATERAL unnest(setconfig) AS setting
    WHERE setting LIKE 'temp_file_limit=%%' AND setrole IN (member.oid, 0)
      AND setdatabase IN ((SELECT oid FROM pg_database WHERE datname = current_database()), 0)
    ORDER BY setrole = 0, setdatabase = 0
    LIMIT 1),
    (SELECT CASE WHEN source LIKE '%%user' OR source LIKE 'database%%' OR source = 'session' THEN boot_val ELSE setting END
    FROM pg_settings WHERE name = 'temp_file_limit')) <> '-1' AS temporary_files,
  coalesce(
    (SELECT split_part(setting, '=', 2)
    FROM pg_db_role_setting CROSS JOIN LATERAL unnest(setconfig) AS setting
    WHERE setting LIKE 'log_min_messages=%%' AND setrole IN (member.oid, 0)
      AND setdatabase IN ((SELECT oid FROM pg_database WHERE datname = current_database()), 0)
    ORDER BY setrole = 0, setdatabase = 0
    LIMIT 1), 'warning') IN ('fatal', 'panic') AS unlogged,
  ARRAY(
    SELECT datname FROM pg_database
    WHERE datallowconn AND datname <> current_database() AND has_database_privilege(member.oid, pg_database.oid, 'CONNECT')
    ORDER BY datname)::text[] AS other_databases
FROM pg_roles AS member
WHERE member.rolcanlogin AND NOT member.rolsuper
  AND pg_has_role(member.oid, to_regrole('processor_tenant_reader')::oid, 'USAGE')
ORDER BY member.rolname

-- tenant_readers: Who reads for a tenant, and which ways round the walls each of them has. Superusers count as members of all roles, so those are named only that somebody made members.
SELECT
  member.rolname AS role,
  member.rolsuper AS superuser,
  member.rolbypassrls AS bypasses,
  member.rolreplication AS replicates,
  member.rolcreaterole AS makes_roles,
  coalesce(pg_has_role(member.oid, (SELECT relowner FROM pg_class WHERE oid = to_regclass('message')), 'MEMBER'), false)
    AS owner,
  ARRAY(
    SELECT wide.name
    FROM unnest(ARRAY[
      'processor_writer', 'processor_reader', 'processor_retention', 'processor_biller',
      'processor_gateway', 'pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program']) AS wide (name)
    WHERE pg_has_role(member.oid, to_regrole(wide.name)::oid, 'MEMBER')
    ORDER BY wide.name) AS groups
FROM pg_roles AS member
WHERE member.rolname <> 'processor_tenant_reader'
  AND pg_has_role(member.oid, to_regrole('processor_tenant_reader')::oid, 'USAGE')
  AND (NOT member.rolsuper OR EXISTS (
    SELECT FROM pg_auth_members
    WHERE pg_auth_members.member = member.oid AND roleid = to_regrole('processor_tenant_reader')::oid))
ORDER BY member.rolname

-- walls_down: What tenants' readers may read in our schema without a policy that keeps them to their own rows.
SELECT relname AS relation
FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_any_column_privilege('processor_tenant_reader', pg_class.oid, 'SELECT')
  AND NOT (relrowsecurity AND EXISTS (
    SELECT FROM pg_policy
    WHERE polrelid = pg_class.oid AND NOT polpermissive AND polcmd IN ('*', 'r')
      AND polroles && ARRAY[0::oid, to_regrole('processor_tenant_reader')::oid]))
  AND NOT (relkind = 'v' AND coalesce('security_invoker=true' = ANY (reloptions), false))
ORDER BY relname

-- keys_hidden: Whether this role may not read API keys.
SELECT NOT has_table_privilege('api_key', 'SELECT')

-- keys_in_force: The API keys in force: whether each may use any producer that is not reserved, and whether it may take back what counted.
SELECT key_id, producers IS NULL, may_void OR may_correct FROM api_key WHERE revoked_at IS NULL ORDER BY created_at, key_id
