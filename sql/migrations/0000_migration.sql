-- The record of applied migrations, and locks that require a privilege.

CREATE TABLE migration (
  number            int NOT NULL CONSTRAINT migration_pkey PRIMARY KEY,
  name              text NOT NULL,
  checksum          text NOT NULL,
  breaks_older_code boolean NOT NULL,
  applied_at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE migration IS 'The migrations of sql/migrations that were applied here, by processor migrate.';
COMMENT ON COLUMN migration.number IS 'The number in front of the file name.';
COMMENT ON COLUMN migration.name IS 'The rest of the file name.';
COMMENT ON COLUMN migration.checksum IS 'SHA-256 of the file, so that an edit of history is noticed.';
COMMENT ON COLUMN migration.breaks_older_code IS 'Whether code that does not know this migration must not run.';
COMMENT ON COLUMN migration.applied_at IS 'When it was applied.';

-- Any login can take any advisory lock and so block all saves. A table lock requires a privilege on the table. PREPARE
-- takes the lock before it checks the privilege, but it can't find a table in a schema that the role may not use. So
-- keep_locks_apart() moves these tables into a schema of their own. They have no columns and no rows. The privilege
-- DELETE allows every lock mode on all supported versions of PostgreSQL, and has no other effect here.
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

CREATE FUNCTION take_lock(lock_table text, waits boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('LOCK TABLE %I IN EXCLUSIVE MODE', lock_table) || CASE WHEN waits THEN '' ELSE ' NOWAIT' END;
EXCEPTION
  -- The table is not found if the caller may not use its schema.
  WHEN undefined_table THEN
    RAISE EXCEPTION 'permission denied to lock %', lock_table USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION take_lock(text, boolean) IS 'Takes one of the tables that are only locked, alone, until the end of this transaction, with the rights of the caller; without waits an error where another holds it.';
CREATE FUNCTION locks_schema() RETURNS name LANGUAGE sql STABLE AS $$ SELECT (left(current_schema(), 57) || '_locks')::name $$;
COMMENT ON FUNCTION locks_schema() IS 'The schema of the tables that are only locked, where keep_locks_apart() could make it.';
-- A function, because it must be run again if we could not create the schema, and by migrations that add a locking
-- function. A schema of another owner is not put into the search path of our functions, which have our privileges.
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
    -- A leftover of an earlier installation, of which only our schema was dropped.
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
