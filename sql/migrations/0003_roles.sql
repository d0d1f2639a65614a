-- Least privilege: what runs all day can't change tables, and what looks can't write. Both are group roles:
-- GRANT processor_writer TO your_login. Where we may not make roles (some hosted databases), a notice says so.

DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['processor_writer', 'processor_reader'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
      END IF;
    EXCEPTION
      -- Roles belong to the whole server: another database's migration may have made it a moment ago.
      WHEN duplicate_object OR unique_violation THEN NULL;
      WHEN insufficient_privilege THEN
        RAISE NOTICE 'may not create role %: create it and grant it as sql/README.md says', role_name;
    END;
  END LOOP;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO processor_writer', current_schema());
    GRANT SELECT ON tenant, event_type, event_schema, registry, migration TO processor_writer;
    GRANT EXECUTE ON FUNCTION registry_version_held(), registry_lock_key() TO processor_writer;
    -- No UPDATE and no DELETE on the books: what is stored stays as it was stored.
    GRANT SELECT, INSERT ON message, duplicate TO processor_writer;
    GRANT SELECT, INSERT, UPDATE ON rejection TO processor_writer;
  END IF;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO processor_reader', current_schema());
    GRANT SELECT ON tenant, event_type, event_schema, registry, migration, message, duplicate, rejection
      TO processor_reader;
  END IF;
END $$;
