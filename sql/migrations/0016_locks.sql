-- Locks that need a right. Whoever may connect can take any advisory lock, and so could keep all others from saving;
-- a lock on a table can be taken only by a role with a right on that table. PREPARE takes it before it asks for that
-- right, but finds no table in a schema that the role may not use: so these tables have a schema of their own.

-- No save of older code is under way once this is ours. Rather fail than make others wait for long, and be run again.
SELECT pg_advisory_xact_lock(registry_lock_key());

-- Tables without columns and rows. DELETE allows every lock mode, on all supported versions of PostgreSQL, and nothing else.
CREATE TABLE registry_lock ();
COMMENT ON TABLE registry_lock IS 'Always empty. The lock on it is held by saves (ROW SHARE) and by changes of the registry, at their commit (EXCLUSIVE).';
CREATE TABLE books_lock ();
COMMENT ON TABLE books_lock IS 'Always empty. The lock on it is held by the one session that removes old rows, rebuilds totals or erases a tenant.';
CREATE TABLE window_lock ();
COMMENT ON TABLE window_lock IS 'Always empty. The lock on it is held by the one transaction that closes or reopens windows.';
CREATE TABLE batch_lock ();
COMMENT ON TABLE batch_lock IS 'Always empty. The lock on it is held by the one transaction that puts lines into batches.';
CREATE TABLE newcomer_lock ();
COMMENT ON TABLE newcomer_lock IS 'Always empty. The lock on it is held by the one transaction that registers tenants by their events.';
CREATE TABLE migrate_lock ();
COMMENT ON TABLE migrate_lock IS 'Always empty. The lock on it is held by the one transaction that applies a migration.';

-- To our group roles, and to roles that somebody made instead of them.
DO $$
DECLARE
  one record;
BEGIN
  FOR one IN
    SELECT DISTINCT lock_table, acl.grantee::regrole AS role_name
    FROM (VALUES
      ('message', 'INSERT', 'registry_lock'),
      ('message', 'DELETE', 'registry_lock'),
      ('message', 'DELETE', 'books_lock'),
      ('usage_line', 'INSERT', 'books_lock'),
      ('usage_line', 'INSERT', 'window_lock'),
      ('usage_line', 'INSERT', 'batch_lock')
    ) AS users_of (relation, privilege, lock_table)
    JOIN pg_class ON pg_class.oid = to_regclass(quote_ident(relation))
    CROSS JOIN LATERAL aclexplode(relacl) AS acl
    WHERE acl.privilege_type = users_of.privilege AND acl.grantee NOT IN (0, relowner)
  LOOP
    EXECUTE format('GRANT DELETE ON %I TO %s', one.lock_table, one.role_name);
  END LOOP;
END $$;

CREATE FUNCTION take_lock(lock_table text, waits boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('LOCK TABLE %I IN EXCLUSIVE MODE', lock_table) || CASE WHEN waits THEN '' ELSE ' NOWAIT' END;
EXCEPTION
  -- Of a schema that the caller may not use nothing is found.
  WHEN undefined_table THEN
    RAISE EXCEPTION 'permission denied to lock %', lock_table USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION take_lock(text, boolean) IS 'Takes one of the tables that are only locked, alone, until the end of this transaction, with the rights of the caller; without waits an error where another holds it.';

CREATE FUNCTION locks_schema() RETURNS name LANGUAGE sql STABLE AS $$ SELECT (left(current_schema(), 57) || '_locks')::name $$;
COMMENT ON FUNCTION locks_schema() IS 'The schema of the tables that are only locked, where keep_locks_apart() could make it.';

-- A function, because it has to be run again where the schema could not be made by us, and by migrations with a new
-- function that locks. A schema of somebody else is not put into the path of our functions: they have our rights.
CREATE FUNCTION keep_locks_apart() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  owner oid := (SELECT relowner FROM pg_class WHERE oid = 'migration'::regclass);
  one record;
BEGIN
  IF to_regnamespace(quote_ident(locks_schema())) IS NULL AND has_database_privilege(current_database(), 'CREATE') THEN
    EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %s', locks_schema(), owner::regrole);
  END IF;
  IF owner IS DISTINCT FROM (SELECT nspowner FROM pg_namespace WHERE nspname = locks_schema()) THEN
    RAISE NOTICE 'every login can hold the tables that are only locked: have CREATE SCHEMA % AUTHORIZATION % run by who may, then SELECT put_up_tenant_walls()',
      quote_ident(locks_schema()), owner::regrole;
    RETURN false;
  END IF;
  EXECUTE format('COMMENT ON SCHEMA %I IS %L', locks_schema(), 'Tables that are only locked. Only roles that may lock one may use it.');
  EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', locks_schema());
  FOR one IN
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind = 'r' AND relnatts = 0 AND relname LIKE '%\_lock'
  LOOP
    -- Left behind where somebody dropped our schema alone, to begin anew.
    IF to_regclass(format('%I.%I', locks_schema(), one.relname)) IS NOT NULL THEN
      EXECUTE format('DROP TABLE %I.%I', locks_schema(), one.relname);
    END IF;
    EXECUTE format('ALTER TABLE %I SET SCHEMA %I', one.relname, locks_schema());
  END LOOP;
  FOR one IN
    SELECT DISTINCT acl.grantee::regrole AS role_name
    FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS acl
    WHERE relnamespace = to_regnamespace(quote_ident(locks_schema())) AND acl.grantee NOT IN (0, relowner)
  LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', locks_schema(), one.role_name);
  END LOOP;
  FOR one IN
    SELECT oid::regprocedure AS locks FROM pg_proc
    WHERE pronamespace = to_regnamespace(quote_ident(current_schema())) AND prosrc ~ 'LOCK TABL[E]'
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, %I, pg_temp', one.locks, locks_schema(), current_schema());
  END LOOP;
  RETURN true;
END $$;
COMMENT ON FUNCTION keep_locks_apart() IS 'Puts the tables that are only locked into a schema of their own, and that schema into the path of the functions that lock them; false, with a notice: there is none, and this role may not make it. For the owner of the tables, or a superuser; harmless to repeat.';
REVOKE EXECUTE ON FUNCTION keep_locks_apart() FROM PUBLIC;

-- For processors of the release before: they ask for an advisory lock on this key to keep all others out.
CREATE OR REPLACE FUNCTION registry_lock_key() RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  RETURN 7309453202311081;
END $$;
COMMENT ON FUNCTION registry_lock_key() IS 'Takes registry_lock alone until the end of this transaction, and gives the key of an advisory lock that older releases take after it.';
REVOKE EXECUTE ON FUNCTION registry_lock_key() FROM PUBLIC;

CREATE OR REPLACE FUNCTION registry_version_held(counts_usage boolean, reads_queues boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF row_security_active('message'::regclass::oid)
    AND coalesce(pg_has_role(to_regrole('processor_tenant_reader')::oid, 'USAGE'), false) THEN
    RAISE EXCEPTION 'a member of processor_tenant_reader may not save' USING ERRCODE = 'insufficient_privilege';
  END IF;
  LOCK TABLE registry_lock IN ROW SHARE MODE;
  IF NOT counts_usage AND EXISTS (SELECT FROM meter) THEN
    RAISE EXCEPTION 'there are meters, and this processor is too old to count by them'
      USING ERRCODE = 'insufficient_privilege', HINT = 'run the release that the tables are of';
  END IF;
  IF NOT reads_queues AND EXISTS (
    SELECT FROM queue
    WHERE registers_tenants OR num_nonnulls(unwrap, mapping, tenants, event_type) > 0) THEN
    RAISE EXCEPTION 'there are rules of queues, and this processor is too old to read by them'
      USING ERRCODE = 'insufficient_privilege', HINT = 'run the release that the tables are of';
  END IF;
  RETURN (SELECT version FROM registry);
END $$;

CREATE OR REPLACE FUNCTION registry_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  UPDATE registry SET version = version + 1 WHERE xmin <> pg_current_xact_id()::xid;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION event_type_id_scope_stays() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  IF EXISTS (SELECT FROM event_schema WHERE event_schema.event_type = NEW.event_type) THEN
    RAISE EXCEPTION 'the id_scope of event type % stays what it is: messages may be known by it', NEW.event_type
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'event_type_id_scope_stays',
        HINT = 'it is chosen before the first schema; publish the event under a new name';
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION meter_begins_or_ends() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  IF TG_OP = 'INSERT' AND EXISTS (
    SELECT FROM meter AS other
    WHERE other.meter = NEW.meter AND other.meter_id <> NEW.meter_id
      AND (other.tenant_id IS NULL OR NEW.tenant_id IS NULL)) THEN
    RAISE EXCEPTION 'meter % is shared in one place and one tenant''s own in another', NEW.meter
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'meter_name_clear', HINT = 'choose another name';
  END IF;
  UPDATE meter SET active_from = clock_timestamp() WHERE meter_id = NEW.meter_id AND active_from = 'infinity';
  UPDATE meter SET text_amounts_from = clock_timestamp()
  WHERE meter_id = NEW.meter_id AND text_amounts_from = 'infinity';
  UPDATE meter SET retired_at = clock_timestamp()
  WHERE meter_id = NEW.meter_id AND status = 'retired' AND retired_at IS NULL;
  RETURN NULL;
END $$;

-- As in 0012.
CREATE OR REPLACE FUNCTION register_tenants(from_queue text, names text[], judged_by bigint) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  rules queue%ROWTYPE;
  room bigint;
  one text;
  is_changed boolean := false;
  lock_timeout_before text := current_setting('lock_timeout');
BEGIN
  LOCK TABLE newcomer_lock IN EXCLUSIVE MODE;
  SELECT * INTO rules FROM queue WHERE queue.queue = from_queue AND queue.registers_tenants;
  IF NOT FOUND OR judged_by IS DISTINCT FROM (SELECT version FROM registry) THEN
    RETURN;
  END IF;
  SELECT rules.registers_max - count(*) INTO room FROM tenant
  WHERE registered_by = from_queue AND created_at > clock_timestamp() - interval '1 hour';
  PERFORM set_config('lock_timeout', '1s', true);
  FOR one IN
    SELECT DISTINCT asked COLLATE "C" AS asked FROM unnest(names) AS asked
    WHERE rules.tenants IS NULL OR asked = ANY (rules.tenants)
    ORDER BY asked
  LOOP
    EXIT WHEN room <= 0;
    BEGIN
      INSERT INTO tenant (tenant_id, name, created_at, registered_by) VALUES (one, one, clock_timestamp(), from_queue)
      ON CONFLICT ON CONSTRAINT tenant_pkey DO NOTHING;
      IF FOUND THEN
        room := room - 1;
        is_changed := true;
        RETURN NEXT one;
      END IF;
    EXCEPTION WHEN lock_not_available THEN NULL;
    END;
  END LOOP;
  PERFORM set_config('lock_timeout', lock_timeout_before, true);
  IF is_changed THEN
    LOCK TABLE registry_lock IN EXCLUSIVE MODE;
    IF judged_by IS DISTINCT FROM (SELECT version FROM registry) THEN
      RAISE EXCEPTION 'the registry has changed meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
  END IF;
END $$;

DO $$
DECLARE
  replaced regprocedure;
BEGIN
  -- CREATE OR REPLACE forgets it.
  FOREACH replaced IN ARRAY ARRAY[
    'registry_lock_key()', 'registry_version_held(boolean, boolean)', 'registry_changed()', 'event_type_id_scope_stays()',
    'meter_begins_or_ends()', 'register_tenants(text, text[], bigint)', 'take_lock(text, boolean)', 'locks_schema()',
    'keep_locks_apart()']::regprocedure[]
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', replaced, current_schema());
  END LOOP;
  -- Granted by 0006, and never used.
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_biller') THEN
    REVOKE EXECUTE ON FUNCTION registry_lock_key() FROM processor_biller;
  END IF;
END $$;
-- Behind nobody's open transaction for long: all who save would wait as well.
ALTER FUNCTION keep_locks_apart() SET lock_timeout = '2s';
SELECT keep_locks_apart();

-- A save that has waited for the lock above holds the old one alone. It sees another version, ends and begins anew.
UPDATE registry SET version = version + 1;
