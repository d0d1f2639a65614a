-- Isolation: a tenant's psql login sees only its own rows, no login can block others by default privileges, and the
-- search path of our functions can't be hijacked.

-- A function, because it must be run again if we could not create the role, or the role was created again. For other
-- roles one permissive policy shows all rows. For members a restrictive policy is added, which removes rows regardless
-- of other grants. The grants come last, so that no member has access before the policies exist.
CREATE FUNCTION put_up_row_walls() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  wall record;
  old_policy name;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_tenant_reader') THEN
    RETURN false;
  END IF;
  FOR wall IN
    SELECT * FROM (VALUES
      -- An array, which is computed once per query and can be used with an index.
      ('message', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('duplicate', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      -- Never by tenant_id, which is only claimed.
      ('rejection', 'bound_tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      -- Deleted rejections were counted by their claimed tenant.
      ('removal', 'outcome IN (''message'', ''duplicate'') AND tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('tenant', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('event_schema', 'tenant_id IS NULL OR tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      -- The event types of other tenants would reveal what they do.
      ('event_type', 'event_type = ANY (ARRAY(SELECT event_type FROM event_schema))'),
      ('meter', 'tenant_id IS NULL OR tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('total', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('meter_miss', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('voided', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('usage_line', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('usage_removal', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      -- A role that was dropped must not be an error for all.
      ('tenant_reader', 'coalesce(pg_has_role(to_regrole(quote_ident(role_name))::oid, ''USAGE''), false)')
    ) AS walls (relation, own_rows)
  LOOP
    FOR old_policy IN
      SELECT polname FROM pg_policy
      WHERE polrelid = to_regclass(quote_ident(wall.relation))
        AND polname IN (wall.relation || '_open', wall.relation || '_of_tenant')
    LOOP
      EXECUTE format('DROP POLICY %I ON %I', old_policy, wall.relation);
    END LOOP;
    EXECUTE format('CREATE POLICY %I ON %I USING (true) WITH CHECK (true)', wall.relation || '_open', wall.relation);
    EXECUTE format('CREATE POLICY %I ON %I AS RESTRICTIVE TO processor_tenant_reader USING (%s)',
      wall.relation || '_of_tenant', wall.relation, wall.own_rows);
    EXECUTE format('COMMENT ON POLICY %I ON %I IS %L', wall.relation || '_open', wall.relation,
      'Whoever may use the table sees all of it, unless another policy takes away.');
    EXECUTE format('COMMENT ON POLICY %I ON %I IS %L', wall.relation || '_of_tenant', wall.relation,
      'Members of processor_tenant_reader see the rows of their own tenants alone (table tenant_reader).');
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', wall.relation);
  END LOOP;
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO processor_tenant_reader', current_schema());
  GRANT SELECT ON message, duplicate, rejection, removal, tenant, event_type, event_schema, meter, total, meter_miss,
    voided, usage_line, usage_removal, usage, tenant_reader
    TO processor_tenant_reader;
  RETURN true;
END $$;
COMMENT ON FUNCTION put_up_row_walls() IS 'The part of put_up_tenant_walls() that is about rows: makes or renews the policies of all tables, then grants processor_tenant_reader what it reads; false: there is no such role.';

-- The table names tenants, so a tenant's reader sees no row of it, regardless of other grants.
CREATE POLICY queue_open ON queue
  USING (NOT coalesce(pg_has_role(to_regrole('processor_tenant_reader')::oid, 'USAGE'), false));
COMMENT ON POLICY queue_open ON queue IS 'Whoever may use the table sees all of it, except members of processor_tenant_reader, who see nothing.';
ALTER TABLE queue ENABLE ROW LEVEL SECURITY;

-- Any login, including a tenant's, could fill the disk with large objects, WAL messages and temporary tables, hold
-- advisory locks, use up transaction ids in a loop, and queue for any lock by DDL, which waits for the lock before it
-- checks privileges.
CREATE FUNCTION functions_kept_from_public() RETURNS TABLE (family text, function oid) LANGUAGE sql STABLE AS $$
  SELECT CASE
      WHEN proname ~ '^pg_(try_)?advisory_' THEN 'pg_advisory_*'
      WHEN proname ~ '^lo_|^loread$|^lowrite$' THEN 'lo_*'
      ELSE proname::text
    END, oid
  FROM pg_catalog.pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace
    -- Exporting a snapshot creates a file.
    AND proname ~ '^(pg_(try_)?advisory_.*|lo_.*|loread|lowrite|pg_logical_emit_message|pg_notify|pg_export_snapshot|pg_current_xact_id|txid_current)$'
$$;
COMMENT ON FUNCTION functions_kept_from_public() IS 'The functions of the server by which any login could fill the disk, hold locks or use up transaction ids, and the family that each is named by.';

-- The function of an event trigger runs as the role that runs the DDL, even a superuser. So a superuser creates and
-- owns it.
CREATE FUNCTION keep_ddl_from_strangers() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper) THEN
    CREATE OR REPLACE FUNCTION refuse_ddl_of_strangers() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $wall$
    DECLARE
      is_tenant boolean := coalesce(pg_has_role(to_regrole('processor_tenant_reader')::oid, 'USAGE'), false);
    BEGIN
      IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        OR EXISTS (SELECT FROM pg_class WHERE relname = 'tenant_reader' AND relpersistence <> 't' AND pg_has_role(relowner, 'USAGE')) THEN
        RETURN;
      END IF;
      IF NOT is_tenant AND (
        has_database_privilege(current_database(), 'CREATE')
        OR EXISTS (SELECT FROM pg_namespace WHERE nspname !~ '^pg_' AND has_schema_privilege(oid, 'CREATE'))
        OR EXISTS (SELECT FROM pg_class WHERE relpersistence <> 't' AND pg_has_role(relowner, 'USAGE'))
        OR (has_database_privilege(current_database(), 'TEMPORARY') AND tg_tag ~ '^(CREATE|DROP) (TABLE|SEQUENCE|VIEW|INDEX)|^SELECT INTO')) THEN
        RETURN;
      END IF;
      RAISE EXCEPTION '% is refused: % may make nothing here', tg_tag, current_user
        USING ERRCODE = 'insufficient_privilege', HINT = 'PostgreSQL would wait for locks before it asks for rights';
    END $wall$;
    COMMENT ON FUNCTION refuse_ddl_of_strangers() IS 'Refuses DDL of tenants'' logins, and of whoever owns nothing here and may make no more than temporary tables.';
    ALTER FUNCTION refuse_ddl_of_strangers() OWNER TO CURRENT_USER;
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'processor_ddl') THEN
      CREATE EVENT TRIGGER processor_ddl ON ddl_command_start EXECUTE FUNCTION refuse_ddl_of_strangers();
    END IF;
  END IF;
  RETURN EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'processor_ddl' AND evtenabled <> 'D');
END $$;
COMMENT ON FUNCTION keep_ddl_from_strangers() IS 'Has DDL refused of logins that may make nothing, before it waits for a lock; false: that takes a superuser, and this role is none.';

-- A privilege is revoked only if PUBLIC has it and we may revoke it; otherwise each function would cause a warning.
CREATE FUNCTION keep_rights_from_public() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  kept record;
  role_name name;
  remaining text;
  may_change_database boolean := (
    SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database());
  may_change_schema boolean := (
    SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = current_schema());
BEGIN
  IF may_change_database THEN
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  END IF;
  IF may_change_schema THEN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
  END IF;
  FOR kept IN
    SELECT function::regprocedure AS function, family FROM functions_kept_from_public()
    JOIN pg_proc ON pg_proc.oid = function
    WHERE pg_has_role(proowner, 'USAGE')
  LOOP
    IF has_function_privilege('public', kept.function::oid, 'EXECUTE') THEN
      EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', kept.function);
    END IF;
    -- Earlier releases take advisory locks as these roles. A save that found a message stored already, and a hand-over
    -- that found a batch, write an empty WAL message, so that their COMMIT waits for the standby. A save reads its own
    -- transaction id.
    FOR role_name IN SELECT rolname FROM pg_roles
      WHERE (kept.family = 'pg_advisory_*' AND rolname IN ('processor_writer', 'processor_biller', 'processor_retention'))
        OR (kept.family = 'pg_current_xact_id' AND oid IN (
          SELECT grantee FROM pg_class CROSS JOIN LATERAL aclexplode(relacl)
          WHERE pg_class.oid = 'message'::regclass AND privilege_type = 'INSERT'))
        OR (kept.family = 'pg_logical_emit_message' AND oid IN (
          SELECT grantee FROM pg_class CROSS JOIN LATERAL aclexplode(relacl)
          WHERE pg_class.oid IN ('message'::regclass, 'usage_line'::regclass) AND privilege_type = 'INSERT'))
    LOOP
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', kept.function, role_name);
    END LOOP;
    FOR role_name IN SELECT rolname FROM pg_roles WHERE NOT rolsuper AND oid IN (
        SELECT relowner FROM pg_class WHERE oid = 'message'::regclass
        UNION SELECT datdba FROM pg_database WHERE datname = current_database())
    LOOP
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', kept.function, role_name);
    END LOOP;
  END LOOP;
  -- USAGE of a language is needed only to create functions and for DO, in which any login could loop.
  FOR kept IN SELECT lanname FROM pg_language WHERE lanpltrusted AND lanispl AND pg_has_role(lanowner, 'USAGE') LOOP
    IF has_language_privilege('public', kept.lanname, 'USAGE') THEN
      EXECUTE format('REVOKE USAGE ON LANGUAGE %I FROM PUBLIC', kept.lanname);
    END IF;
    FOR role_name IN SELECT rolname FROM pg_roles WHERE NOT rolsuper AND oid IN (
        SELECT relowner FROM pg_class WHERE oid = 'message'::regclass
        UNION SELECT datdba FROM pg_database WHERE datname = current_database())
    LOOP
      EXECUTE format('GRANT USAGE ON LANGUAGE %I TO %I', kept.lanname, role_name);
    END LOOP;
  END LOOP;
  IF may_change_database THEN
    -- An audit and a rebuild use temporary tables.
    FOR role_name IN SELECT rolname FROM pg_roles
      WHERE rolname IN ('processor_writer', 'processor_reader', 'processor_biller')
        OR oid = (SELECT relowner FROM pg_class WHERE oid = 'message'::regclass)
    LOOP
      EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), role_name);
    END LOOP;
  END IF;
  SELECT string_agg(right_left, ', ' ORDER BY right_left) INTO remaining FROM (
    SELECT privilege || ' on the database' FROM unnest(ARRAY['CREATE', 'TEMPORARY']) AS privilege
    WHERE has_database_privilege('public', current_database(), privilege)
    UNION SELECT 'CREATE on schema ' || current_schema()
    WHERE has_schema_privilege('public', current_schema(), 'CREATE')
    UNION SELECT 'USAGE on language ' || lanname FROM pg_language
    WHERE lanpltrusted AND lanispl AND has_language_privilege('public', oid, 'USAGE')
    UNION SELECT 'locks by DDL' WHERE NOT keep_ddl_from_strangers()
    UNION SELECT family FROM functions_kept_from_public()
    WHERE has_function_privilege('public', function, 'EXECUTE')) AS rights_left (right_left);
  IF remaining IS NOT NULL THEN
    RAISE NOTICE 'every login keeps %: only a superuser can take it away, by SELECT put_up_tenant_walls()', remaining;
  END IF;
  RETURN remaining IS NULL;
END $$;
COMMENT ON FUNCTION keep_rights_from_public() IS 'Takes from PUBLIC what any login could fill the disk or hold locks with, and leaves it to the owner and to our roles that need it; false: some of it needs a superuser, and a notice names it.';

CREATE FUNCTION put_up_tenant_walls() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM keep_locks_apart();
  PERFORM keep_rights_from_public();
  RETURN put_up_row_walls();
END $$;
COMMENT ON FUNCTION put_up_tenant_walls() IS 'Makes or renews the policies of all tables, grants processor_tenant_reader what it reads, and takes from PUBLIC what could stop others; false: there is no such role. For the owner of the tables, or a superuser, who can take more; harmless to repeat.';

REVOKE EXECUTE ON FUNCTION
  registry_changed(), registry_lock_key(), event_type_id_scope_stays(), register_tenants(text, text[], bigint),
  rejection_room_changed(), meter_begins_or_ends(), pulse_lines_stay_clear(), remove_messages(tid[], timestamptz, timestamptz),
  remove_duplicates(tid, tid, timestamptz, int), remove_rejections(tid, tid, timestamptz, timestamptz, int),
  keep_locks_apart(), keep_rights_from_public(), keep_ddl_from_strangers(), put_up_row_walls(), put_up_tenant_walls()
FROM PUBLIC;

-- The search path names the schema, with temporary tables last. Else a login could put its own table named registry
-- before ours, and its triggers would run with the privileges of the owner.
DO $$
DECLARE
  made regprocedure;
BEGIN
  FOR made IN
    SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = to_regnamespace(quote_ident(current_schema())) AND proname IN (
      'take_lock', 'locks_schema', 'keep_locks_apart', 'registry_changed', 'registry_version_held', 'registry_lock_key',
      'event_type_id_scope_stays', 'register_tenants', 'rejection_rule_stays', 'rejection_room_changed', 'meter_stays',
      'meter_begins_or_ends', 'pulse_lines_stay_clear', 'api_key_stays', 'remove_messages', 'remove_duplicates',
      'remove_rejections', 'put_up_row_walls', 'functions_kept_from_public', 'keep_ddl_from_strangers',
      'keep_rights_from_public', 'put_up_tenant_walls')
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', made, current_schema());
  END LOOP;
END $$;
-- A generic plan would not know that there are only a few rows.
ALTER FUNCTION remove_messages(tid[], timestamptz, timestamptz) SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION remove_duplicates(tid, tid, timestamptz, int) SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION remove_rejections(tid, tid, timestamptz, timestamptz, int) SET plan_cache_mode = force_custom_plan;
-- A short wait behind open transactions, because all saves would wait too.
ALTER FUNCTION keep_locks_apart() SET lock_timeout = '2s';
ALTER FUNCTION put_up_row_walls() SET lock_timeout = '2s';

SELECT put_up_tenant_walls();
