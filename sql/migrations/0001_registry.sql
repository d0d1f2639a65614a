-- Who may send what: tenants, event types and the schemas of their events, with one version number for
-- all of it, so that every process can tell whether what it remembers is still true.

CREATE TABLE tenant (
  tenant_id  text COLLATE "C" NOT NULL CONSTRAINT tenant_pkey PRIMARY KEY,
  name       text NOT NULL,
  status     text NOT NULL DEFAULT 'active',
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT tenant_id_fit CHECK (char_length(tenant_id) BETWEEN 1 AND 256 AND tenant_id !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT tenant_status_known CHECK (status IN ('active', 'suspended'))
);
COMMENT ON TABLE tenant IS 'A customer of the platform; owns its messages.';
COMMENT ON COLUMN tenant.tenant_id IS 'The name by which producers claim the tenant; 1 to 256 characters, no control characters.';
COMMENT ON COLUMN tenant.name IS 'What people call the tenant.';
COMMENT ON COLUMN tenant.status IS 'active: its events are stored. suspended: they are rejected as tenant_suspended, and can be replayed later.';
COMMENT ON COLUMN tenant.created_at IS 'When the tenant was added.';

CREATE TABLE event_type (
  event_type  text COLLATE "C" NOT NULL CONSTRAINT event_type_pkey PRIMARY KEY,
  description text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT event_type_fit CHECK (char_length(event_type) BETWEEN 1 AND 256 AND event_type !~ '[\u0001-\u001f\u007f-\u009f]')
);
COMMENT ON TABLE event_type IS 'The name of a kind of event, such as order.created.';
COMMENT ON COLUMN event_type.event_type IS 'The name that producers send; 1 to 256 characters, no control characters.';
COMMENT ON COLUMN event_type.description IS 'What such an event says, for people.';
COMMENT ON COLUMN event_type.created_at IS 'When the event type was first published.';

CREATE TABLE event_schema (
  schema_id    bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT event_schema_pkey PRIMARY KEY,
  event_type   text COLLATE "C" NOT NULL CONSTRAINT event_schema_event_type_fkey REFERENCES event_type,
  tenant_id    text COLLATE "C" NULL CONSTRAINT event_schema_tenant_fkey REFERENCES tenant,
  version      int NOT NULL,
  definition   jsonb NOT NULL,
  published_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT event_schema_version_key UNIQUE NULLS NOT DISTINCT (event_type, tenant_id, version),
  CONSTRAINT event_schema_typed_key UNIQUE (schema_id, event_type),
  CONSTRAINT event_schema_version_positive CHECK (version >= 1),
  CONSTRAINT event_schema_definition_shape CHECK (jsonb_typeof(definition) IN ('object', 'boolean'))
);
COMMENT ON TABLE event_schema IS 'One version of the JSON Schema (2020-12) of an event type. A tenant with schemas of its own for an event type is validated by those alone, else by the shared ones.';
COMMENT ON COLUMN event_schema.schema_id IS 'Names this version in message.schema_id.';
COMMENT ON COLUMN event_schema.event_type IS 'The event type whose payloads it describes.';
COMMENT ON COLUMN event_schema.tenant_id IS 'The tenant whose own schema this is; NULL: shared by all tenants.';
COMMENT ON COLUMN event_schema.version IS 'Counts from 1 for each event type and tenant. The highest one holds unless the event names one.';
COMMENT ON COLUMN event_schema.definition IS 'The JSON Schema itself. To change a rule publish a new version: stored messages point to the one they were validated by.';
COMMENT ON COLUMN event_schema.published_at IS 'When the version was published.';

CREATE TABLE registry (
  version bigint NOT NULL,
  only_row boolean NOT NULL DEFAULT true CONSTRAINT registry_pkey PRIMARY KEY,
  CONSTRAINT registry_one_row CHECK (only_row)
);
INSERT INTO registry (version) VALUES (1);
COMMENT ON TABLE registry IS 'One row: the version of tenant, event_type and event_schema taken together.';
COMMENT ON COLUMN registry.version IS 'Raised once by every transaction that changes tenant, event_type or event_schema, from psql too.';
COMMENT ON COLUMN registry.only_row IS 'Always true; keeps the table at one row.';

-- Writers hold this lock shared for the length of a save, changes of the registry take it alone at commit.
CREATE FUNCTION registry_lock_key() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN 7309453202311081;
COMMENT ON FUNCTION registry_lock_key() IS 'The advisory lock between saves (shared) and changes of the registry (exclusive, at commit).';

-- Two statements on purpose: the version must be read by a snapshot taken after the lock was granted, so a
-- transaction in READ COMMITTED is needed as well.
CREATE FUNCTION registry_version_held() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(registry_lock_key());
  RETURN (SELECT version FROM registry);
END $$;
COMMENT ON FUNCTION registry_version_held() IS 'Keeps the registry from changing until the end of this transaction, and gives its version.';

-- Deferred to the commit, so that an open psql transaction blocks nobody. SECURITY DEFINER, so that whoever
-- may change a tenant need not be given rights on the registry itself. A row that this transaction has raised
-- already carries its id.
CREATE FUNCTION registry_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(registry_lock_key());
  UPDATE registry SET version = version + 1 WHERE xmin <> pg_current_xact_id()::xid;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION registry_changed() IS 'Raises registry.version once per transaction, at its commit, when no save is under way.';

-- The schema is written out, and temporary tables are looked for last: otherwise anyone could put a table of
-- his own named registry before ours, and have his triggers run with the rights of the owner.
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION registry_version_held() SET search_path = %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION registry_changed() SET search_path = %I, pg_temp', current_schema());
END $$;
REVOKE EXECUTE ON FUNCTION registry_changed() FROM PUBLIC;

CREATE CONSTRAINT TRIGGER tenant_changed AFTER INSERT OR UPDATE OR DELETE ON tenant
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE CONSTRAINT TRIGGER event_type_changed AFTER INSERT OR UPDATE OR DELETE ON event_type
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE CONSTRAINT TRIGGER event_schema_changed AFTER INSERT OR UPDATE OR DELETE ON event_schema
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
-- TRUNCATE fires no row triggers.
CREATE TRIGGER tenant_truncated AFTER TRUNCATE ON tenant EXECUTE FUNCTION registry_changed();
CREATE TRIGGER event_type_truncated AFTER TRUNCATE ON event_type EXECUTE FUNCTION registry_changed();
CREATE TRIGGER event_schema_truncated AFTER TRUNCATE ON event_schema EXECUTE FUNCTION registry_changed();
