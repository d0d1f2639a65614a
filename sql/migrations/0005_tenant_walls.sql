-- Walls between tenants: a rejection keeps who sent it and whose it is proven to be, and a tenant that is let in
-- with psql sees its own rows alone. The rights of all others stay as they are.

-- No save is under way once this is ours, so that none can meet the locks below in another order. Nobody waits
-- long for it: rather fail, leave nothing behind, and be run again.
SET LOCAL lock_timeout = '10s';
SELECT pg_advisory_xact_lock(registry_lock_key());

ALTER TABLE rejection ADD COLUMN sender_id text COLLATE "C" NULL, ADD COLUMN bound_tenant_id text COLLATE "C" NULL;
COMMENT ON COLUMN rejection.sender_id IS 'Who put it on the queue, as the queue says (SQS SenderId); NULL: it did not say, or was not asked.';
COMMENT ON COLUMN rejection.bound_tenant_id IS 'The one tenant that it can be from by QUEUE_TENANTS and SENDER_TENANTS, whatever it claims; NULL: nothing proves whose it is. Readers of a tenant see a rejection by this alone.';

CREATE TABLE tenant_reader (
  role_name text COLLATE "C" NOT NULL,
  tenant_id text COLLATE "C" NOT NULL CONSTRAINT tenant_reader_tenant_fkey REFERENCES tenant,
  CONSTRAINT tenant_reader_pkey PRIMARY KEY (role_name, tenant_id),
  -- All tenants' readers have the rights of the first, so this would show a tenant to all of them.
  CONSTRAINT tenant_reader_role_own CHECK (role_name NOT IN (
    'processor_tenant_reader', 'processor_writer', 'processor_reader', 'processor_retention'))
);
COMMENT ON TABLE tenant_reader IS 'Which database roles read for which tenant. It holds for members of processor_tenant_reader, who see nothing without a row here.';
COMMENT ON COLUMN tenant_reader.role_name IS 'The name of the login, or of a group whose rights it inherits, as in pg_roles.rolname.';
COMMENT ON COLUMN tenant_reader.tenant_id IS 'The tenant whose rows it sees.';

DO $$
BEGIN
  BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_tenant_reader') THEN
      CREATE ROLE processor_tenant_reader NOLOGIN;
    END IF;
  EXCEPTION
    -- Roles belong to the whole server: another database's migration may have made it a moment ago.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
      RAISE NOTICE 'may not create role processor_tenant_reader: have it created, then run SELECT put_up_tenant_walls()';
  END;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON tenant_reader TO processor_reader;
  END IF;
END $$;

-- A function, because it has to be run again where the role could not be made by us, or was made anew. For whoever
-- is no member, one policy lets all pass, as without any; for members a second one, which is restrictive and so can
-- only take away, whatever else they are granted. The grants come last: nobody gets in before the walls stand.
CREATE FUNCTION put_up_tenant_walls() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  wall record;
  old_policy name;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_tenant_reader') THEN
    RETURN false;
  END IF;
  FOR wall IN
    SELECT * FROM (VALUES
      -- An array, so that it is made once for a query and can be looked up in an index.
      ('message', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('duplicate', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      -- Never by tenant_id, which is what a stranger claims.
      ('rejection', 'bound_tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      -- Removed rejections were counted by the tenant that they claimed.
      ('removal', 'outcome IN (''message'', ''duplicate'') AND tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('tenant', 'tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      ('event_schema', 'tenant_id IS NULL OR tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenant_reader))'),
      -- The names of event types that only others have say what others do.
      ('event_type', 'event_type = ANY (ARRAY(SELECT event_type FROM event_schema))'),
      -- A role that is gone is nobody's, and no error for all.
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
  GRANT SELECT ON message, duplicate, rejection, removal, tenant, event_type, event_schema, tenant_reader
    TO processor_tenant_reader;
  RETURN true;
END $$;
COMMENT ON FUNCTION put_up_tenant_walls() IS 'Makes or renews the policies of all tables, then grants processor_tenant_reader what it reads; false: there is no such role. For the owner of the tables; harmless to repeat.';
REVOKE EXECUTE ON FUNCTION put_up_tenant_walls() FROM PUBLIC;

-- A writer from whom rows are hidden would find no earlier outcome, and store a delivery twice. Who connects looks
-- for that once and says it in words; this is for the grant that somebody makes while a processor runs.
CREATE OR REPLACE FUNCTION registry_version_held() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF row_security_active('message'::regclass::oid)
    AND coalesce(pg_has_role(to_regrole('processor_tenant_reader')::oid, 'USAGE'), false) THEN
    RAISE EXCEPTION 'a member of processor_tenant_reader may not save' USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM pg_advisory_xact_lock_shared(registry_lock_key());
  RETURN (SELECT version FROM registry);
END $$;

DO $$
BEGIN
  -- CREATE OR REPLACE forgets these.
  EXECUTE format('ALTER FUNCTION registry_version_held() SET search_path = %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION put_up_tenant_walls() SET search_path = %I, pg_temp', current_schema());
  PERFORM put_up_tenant_walls();
END $$;
