-- Roles by least privilege: services can't change the schema, and readers can't write. All are group roles:
-- GRANT processor_writer TO your_login. If we may not create roles (on some hosted databases), a notice says so.

CREATE TABLE tenant_reader (
  role_name text COLLATE "C" NOT NULL,
  tenant_id text COLLATE "C" NOT NULL CONSTRAINT tenant_reader_tenant_fkey REFERENCES tenant,
  CONSTRAINT tenant_reader_pkey PRIMARY KEY (role_name, tenant_id),
  -- Such a row would give all members of the group access.
  CONSTRAINT tenant_reader_role_own CHECK (role_name NOT IN (
    'processor_tenant_reader', 'processor_writer', 'processor_reader', 'processor_retention', 'processor_biller',
    'processor_gateway'))
);
COMMENT ON TABLE tenant_reader IS 'Which database roles read for which tenant. It holds for members of processor_tenant_reader, who see nothing without a row here.';
COMMENT ON COLUMN tenant_reader.role_name IS 'The name of the login, or of a group whose rights it inherits, as in pg_roles.rolname.';
COMMENT ON COLUMN tenant_reader.tenant_id IS 'The tenant whose rows it sees.';

DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY[
    'processor_writer', 'processor_reader', 'processor_retention', 'processor_biller', 'processor_gateway', 'processor_tenant_reader']
  LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
      END IF;
    EXCEPTION
      -- Roles belong to the whole server: the migration of another database may just have created it.
      WHEN duplicate_object OR unique_violation THEN NULL;
      WHEN insufficient_privilege THEN
        RAISE NOTICE 'may not create role %: %', role_name, CASE role_name
          WHEN 'processor_tenant_reader' THEN 'have it created, then run SELECT put_up_tenant_walls()'
          ELSE 'create it and grant it as sql/README.md says' END;
    END;
    IF role_name <> 'processor_tenant_reader' AND EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role_name);
    END IF;
  END LOOP;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT SELECT ON migration, registry, tenant, event_type, event_schema, queue, rejection_rule, rejection_room, removal,
      meter, usage_rebuild, usage_removal, usage_line, reopened_window, usage TO processor_writer;
    -- No UPDATE and no DELETE on messages: stored rows never change. Elsewhere UPDATE only on the necessary columns, never
    -- on received or billed data.
    GRANT SELECT, INSERT ON message, duplicate, rejection, total, meter_miss, voided TO processor_writer;
    GRANT UPDATE (
      reason, detail, tenant_id, event_type, message_id, producer, rejected_at, status, replay_count, closed_at,
      bound_tenant_id, first_rejected_at, rule_id) ON rejection TO processor_writer;
    GRANT UPDATE (value, messages, first_at, last_at, is_closed) ON total TO processor_writer;
    GRANT UPDATE (messages, first_at, last_at, last_message_id) ON meter_miss TO processor_writer;
    GRANT SELECT, INSERT, DELETE ON attempt, unsettled, run_message TO processor_writer;
    GRANT UPDATE (attempts, hangs, noted_at) ON attempt TO processor_writer;
    -- For moving a note to the redelivery that takes it.
    GRANT UPDATE (delivery_id, noted_at) ON unsettled TO processor_writer;
    GRANT DELETE ON registry_lock TO processor_writer;
    GRANT EXECUTE ON FUNCTION registry_version_held(), registry_version_held(boolean), registry_version_held(boolean, boolean),
      registry_version_held(boolean, boolean, boolean), registry_lock_key(), register_tenants(text, text[], bigint)
      TO processor_writer;
  END IF;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON migration, registry, tenant, event_type, event_schema, queue, rejection_rule, tenant_reader, api_key,
      message, duplicate, rejection, rejection_room, attempt, unsettled, run_message, removal, retention_floor,
      meter, total, meter_miss, voided, usage_rebuild, usage_removal, reopened_window, usage_batch, usage_line, usage_place,
      usage TO processor_reader;
  END IF;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_retention') THEN
    GRANT SELECT ON migration, tenant, message, duplicate, rejection, rejection_rule, removal, retention_floor, meter, voided,
      usage_rebuild, usage_removal TO processor_retention;
    GRANT DELETE ON books_lock TO processor_retention;
    GRANT EXECUTE ON FUNCTION remove_messages(tid[], timestamptz, timestamptz),
      remove_duplicates(tid, tid, timestamptz, int), remove_rejections(tid, tid, timestamptz, timestamptz, int)
      TO processor_retention;
  END IF;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_biller') THEN
    GRANT SELECT ON migration, registry, tenant, event_type, event_schema, message, meter, meter_miss, voided, removal,
      usage_removal, usage TO processor_biller;
    GRANT SELECT, INSERT ON total, usage_line, usage_batch, usage_rebuild, usage_place TO processor_biller;
    GRANT UPDATE (batch_id, handed_over_at, trouble) ON usage_line TO processor_biller;
    GRANT UPDATE (attempt_count, next_attempt_at, handed_over_at, trouble) ON usage_batch TO processor_biller;
    GRANT UPDATE (rebuilt_at) ON usage_rebuild TO processor_biller;
    GRANT UPDATE (place, reason, noted_at) ON usage_place TO processor_biller;
    GRANT UPDATE (value, messages, first_at, last_at, is_closed) ON total TO processor_biller;
    GRANT SELECT, INSERT, DELETE ON reopened_window TO processor_biller;
    GRANT DELETE ON books_lock, window_lock, batch_lock TO processor_biller;
  END IF;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_gateway') THEN
    -- The gateway is exposed to the internet. It needs only keys and tenants, event types with an id scope, and the meters
    -- that allow negative amounts.
    GRANT SELECT ON tenant, api_key, event_type, meter TO processor_gateway;
  END IF;
END $$;
