-- A tenant's login, and any login that may connect, could fill the disk by large objects, WAL messages and temporary
-- tables, and hold advisory locks. Putting up the tenants' walls takes these rights from PUBLIC, too.

CREATE FUNCTION functions_kept_from_public() RETURNS TABLE (family text, function oid) LANGUAGE sql STABLE AS $$
  SELECT CASE
      WHEN proname ~ '^pg_(try_)?advisory_' THEN 'pg_advisory_*'
      WHEN proname ~ '^lo_|^loread$|^lowrite$' THEN 'lo_*'
      ELSE proname::text
    END, oid
  FROM pg_catalog.pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace
    -- Exporting a snapshot makes a file; the others speak for themselves.
    AND proname ~ '^(pg_(try_)?advisory_.*|lo_.*|loread|lowrite|pg_logical_emit_message|pg_notify|pg_export_snapshot)$'
$$;
COMMENT ON FUNCTION functions_kept_from_public() IS 'The functions of the server by which any login could fill the disk or hold locks, and the family that each is named by.';

-- Each right is taken only while PUBLIC has it, and only by who may: others would get a warning for each function.
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
    -- Releases before this one take advisory locks as these roles. A save that found a message stored already, and
    -- a hand-over that found a batch, write an empty WAL message, so that their COMMIT waits for the standby.
    FOR role_name IN SELECT rolname FROM pg_roles
      WHERE (kept.family = 'pg_advisory_*' AND rolname IN ('processor_writer', 'processor_biller', 'processor_retention'))
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
  IF may_change_database THEN
    -- An audit and a rebuild put what they compare into temporary tables.
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
    UNION SELECT family FROM functions_kept_from_public()
    WHERE has_function_privilege('public', function, 'EXECUTE')) AS rights_left (right_left);
  IF remaining IS NOT NULL THEN
    RAISE NOTICE 'every login keeps %: only a superuser can take it away, by SELECT put_up_tenant_walls()', remaining;
  END IF;
  RETURN remaining IS NULL;
END $$;
COMMENT ON FUNCTION keep_rights_from_public() IS 'Takes from PUBLIC what any login could fill the disk or hold locks with, and leaves it to the owner and to our roles that need it; false: some of it needs a superuser, and a notice names it.';

ALTER FUNCTION put_up_tenant_walls() RENAME TO put_up_row_walls;
COMMENT ON FUNCTION put_up_row_walls() IS 'The part of put_up_tenant_walls() that is about rows: makes or renews the policies of all tables, then grants processor_tenant_reader what it reads; false: there is no such role.';

CREATE FUNCTION put_up_tenant_walls() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM keep_rights_from_public();
  RETURN put_up_row_walls();
END $$;
COMMENT ON FUNCTION put_up_tenant_walls() IS 'Makes or renews the policies of all tables, grants processor_tenant_reader what it reads, and takes from PUBLIC what could stop others; false: there is no such role. For the owner of the tables, or a superuser, who can take more; harmless to repeat.';

DO $$
DECLARE
  function_name text;
BEGIN
  FOREACH function_name IN ARRAY ARRAY['keep_rights_from_public', 'put_up_tenant_walls', 'functions_kept_from_public'] LOOP
    EXECUTE format('ALTER FUNCTION %I() SET search_path = %I, pg_temp', function_name, current_schema());
  END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION keep_rights_from_public(), put_up_tenant_walls() FROM PUBLIC;
SELECT put_up_tenant_walls();
