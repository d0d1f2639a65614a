-- What a queue carries: how its bodies are read, for which tenants it may speak, and whether it registers those that
-- it does not know. Part of the registry, so that a verdict and a replay rest on it, whatever is set where they run.

-- No save is under way once this is ours, so that none can meet the locks below in another order. Nobody waits
-- long for it: rather fail, leave nothing behind, and be run again.
SET LOCAL lock_timeout = '10s';
SELECT pg_advisory_xact_lock(registry_lock_key());

CREATE TABLE queue (
  queue             text COLLATE "C" NOT NULL CONSTRAINT queue_pkey PRIMARY KEY,
  unwrap            text COLLATE "C" NULL,
  mapping           jsonb NULL,
  tenants           text[] NULL,
  event_type        text COLLATE "C" NULL,
  registers_tenants boolean NOT NULL DEFAULT false,
  registers_max     int NOT NULL DEFAULT 1000,
  registered_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT queue_name_fit CHECK (char_length(queue) BETWEEN 1 AND 256 AND queue !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT queue_unwrap_known CHECK (unwrap IN ('none', 'sns', 'eventbridge', 's3')),
  CONSTRAINT queue_mapping_named CHECK (jsonb_typeof(mapping) = 'object' AND mapping <> '{}' AND NOT mapping ?& ARRAY['payload', 'payload_json']
    AND mapping - ARRAY['tenant_id', 'event_type', 'payload', 'payload_json', 'id', 'producer', 'occurred_at', 'schema_version'] = '{}'),
  CONSTRAINT queue_mapping_pointers CHECK (NOT jsonb_path_exists(mapping, '$.* ? (@.type() != "string")')
    AND NOT jsonb_path_exists(mapping, '$.* ? (!(@ like_regex "^(/([^~/]|~[01])*)*$"))')),
  CONSTRAINT queue_tenants_named CHECK (cardinality(tenants) >= 1 AND array_ndims(tenants) = 1 AND array_position(tenants, NULL) IS NULL),
  CONSTRAINT queue_event_type_fit CHECK (char_length(event_type) BETWEEN 1 AND 256 AND event_type !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT queue_registers_max_positive CHECK (registers_max >= 1)
);
COMMENT ON TABLE queue IS 'What is said of a queue (processor queue set); part of the registry. It goes before the setting UNWRAP; what QUEUE_TENANTS binds too, both must allow. A row of which nothing is said any more is kept: messages may have keys by what was said.';
COMMENT ON COLUMN queue.queue IS 'The name of the queue, as in message.queue.';
COMMENT ON COLUMN queue.unwrap IS 'The service that puts an envelope around each event, which is taken off: sns, eventbridge or s3; none: there is no such envelope. NULL: as UNWRAP says.';
COMMENT ON COLUMN queue.mapping IS 'Where its bodies have what, as an object of names and JSON pointers such as {"tenant_id": "/client_id", "payload": "/message"}. NULL: they are in one of the known formats.';
COMMENT ON COLUMN queue.tenants IS 'The tenants that it may speak for; a body that names another one is rejected. NULL: any.';
COMMENT ON COLUMN queue.event_type IS 'The type of its events, which need not name it, and may name no other; NULL: each names its own.';
COMMENT ON COLUMN queue.registers_tenants IS 'Whether a valid event of a tenant that is not registered registers it.';
COMMENT ON COLUMN queue.registers_max IS 'As many tenants are registered by it within an hour; more have to wait, as rejections.';
COMMENT ON COLUMN queue.registered_at IS 'When something was first said of the queue.';

ALTER TABLE tenant ADD COLUMN registered_by text COLLATE "C" NULL;
COMMENT ON COLUMN tenant.registered_by IS 'The queue with the event by which the tenant was registered, at created_at; NULL: a person added it.';
CREATE INDEX tenant_registered_idx ON tenant (registered_by, created_at) WHERE registered_by IS NOT NULL;

CREATE CONSTRAINT TRIGGER queue_changed AFTER INSERT OR UPDATE OR DELETE ON queue
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE TRIGGER queue_truncated AFTER TRUNCATE ON queue EXECUTE FUNCTION registry_changed();

-- Code that knows nothing of this table would read bodies as they are not meant, and speak for any tenant. It calls
-- the function with one argument, which refuses as soon as something is said.
CREATE FUNCTION registry_version_held(counts_usage boolean, reads_queues boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF row_security_active('message'::regclass::oid)
    AND coalesce(pg_has_role(to_regrole('processor_tenant_reader')::oid, 'USAGE'), false) THEN
    RAISE EXCEPTION 'a member of processor_tenant_reader may not save' USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM pg_advisory_xact_lock_shared(registry_lock_key());
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
COMMENT ON FUNCTION registry_version_held(boolean, boolean) IS 'Keeps the registry from changing until the end of this transaction, and gives its version; counts_usage says that the caller raises totals, reads_queues that it reads by the table queue.';
CREATE OR REPLACE FUNCTION registry_version_held(counts_usage boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN registry_version_held(counts_usage, false);
END $$;
COMMENT ON FUNCTION registry_version_held(boolean) IS 'As registry_version_held(counts_usage, false): for code that is older than the table queue.';

-- SECURITY DEFINER: a processor must not be able to add tenants but in this way. Its own lock, so that the bound is
-- exact; the registry's comes last, when nothing else is waited for: a psql session may hold one of the names in a
-- transaction that is open, and needs that lock to commit. Such a name is not waited for long, and left out.
CREATE FUNCTION register_tenants(from_queue text, names text[], judged_by bigint) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  rules queue%ROWTYPE;
  room bigint;
  one text;
  is_changed boolean := false;
  lock_timeout_before text := current_setting('lock_timeout');
BEGIN
  PERFORM pg_advisory_xact_lock(7309453202311086);
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
    PERFORM pg_advisory_xact_lock(registry_lock_key());
    IF judged_by IS DISTINCT FROM (SELECT version FROM registry) THEN
      RAISE EXCEPTION 'the registry has changed meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
  END IF;
END $$;
COMMENT ON FUNCTION register_tenants(text, text[], bigint) IS 'Registers those of the names that are unknown, where the queue may, up to its bound for an hour; gives those that were registered. judged_by is the version of the registry by which their events are valid; by an older one nothing is registered.';

DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION register_tenants(text, text[], bigint) SET search_path = %I, pg_temp', current_schema());
  -- CREATE OR REPLACE forgets it.
  EXECUTE format('ALTER FUNCTION registry_version_held(boolean) SET search_path = %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION registry_version_held(boolean, boolean) SET search_path = %I, pg_temp', current_schema());
  REVOKE EXECUTE ON FUNCTION register_tenants(text, text[], bigint) FROM PUBLIC;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT SELECT ON queue TO processor_writer;
    GRANT EXECUTE ON FUNCTION register_tenants(text, text[], bigint), registry_version_held(boolean, boolean) TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON queue TO processor_reader;
  END IF;
END $$;

-- It names tenants, so whoever reads for one sees none of it, whatever else is granted to him.
CREATE POLICY queue_open ON queue
  USING (NOT coalesce(pg_has_role(to_regrole('processor_tenant_reader')::oid, 'USAGE'), false));
COMMENT ON POLICY queue_open ON queue IS 'Whoever may use the table sees all of it, except members of processor_tenant_reader, who see nothing.';
ALTER TABLE queue ENABLE ROW LEVEL SECURITY;
