-- What a key may send, and a queue carry: event types, producers, and whether it may void or correct what counts. Keys
-- and queues that exist go on to do what they could; keys that are added from now on may neither void nor correct unless that is said.

ALTER TABLE api_key
  ADD COLUMN event_types text[] NULL,
  ADD COLUMN producers   text[] NULL,
  ADD COLUMN may_void    boolean NOT NULL DEFAULT true,
  ADD COLUMN may_correct boolean NOT NULL DEFAULT true,
  ADD COLUMN digest_rounds smallint NOT NULL DEFAULT 1,
  ADD CONSTRAINT api_key_digest_rounds_known CHECK (digest_rounds IN (1, 2)),
  ADD CONSTRAINT api_key_event_types_named CHECK (cardinality(event_types) BETWEEN 1 AND 100
    AND array_ndims(event_types) = 1 AND array_position(event_types, NULL) IS NULL),
  ADD CONSTRAINT api_key_producers_named CHECK (cardinality(producers) BETWEEN 1 AND 100
    AND array_ndims(producers) = 1 AND array_position(producers, NULL) IS NULL);
ALTER TABLE api_key ALTER COLUMN may_void SET DEFAULT false, ALTER COLUMN may_correct SET DEFAULT false;
COMMENT ON COLUMN api_key.event_types IS 'The event types that it may send, besides voids; NULL: any.';
COMMENT ON COLUMN api_key.producers IS 'As which producers it may send, and whose messages it may void: a name with * at its end stands for all that begin so, the empty name for events that name no producer. NULL: any that is not reserved, by RESERVED_PRODUCERS or by a key of the tenant that is in force, is older and names it.';
COMMENT ON COLUMN api_key.may_void IS 'Whether it may send events of type void, which cancel what another message of its producers had counted.';
COMMENT ON COLUMN api_key.may_correct IS 'Whether it may send negative amounts where a meter adds them (meter.allows_corrections).';
COMMENT ON COLUMN api_key.digest_rounds IS 'How often the secret went through SHA-256: once in keys of releases that know no rights, twice in all others, which such releases therefore take for wrong ones.';
COMMENT ON COLUMN api_key.digest IS 'SHA-256 of the secret half, or of that once more (digest_rounds). The secret has 256 random bits, so that nobody can guess it from this.';

CREATE OR REPLACE FUNCTION api_key_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF to_jsonb(NEW) - ARRAY['name', 'revoked_at'] <> to_jsonb(OLD) - ARRAY['name', 'revoked_at']
    OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at) THEN
    RAISE EXCEPTION 'API key % stays what it is, and revoked once it was revoked', OLD.key_id
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'api_key_stays',
        HINT = 'add another one: processor key add';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION api_key_stays() IS 'Refuses to give a key to another tenant, to change its digest or what it may send, or to bring it back after it was revoked.';

-- A queue of its own is a tenant's door too.
ALTER TABLE queue
  ADD COLUMN event_types text[] NULL,
  ADD COLUMN producers   text[] NULL,
  ADD COLUMN may_void    boolean NOT NULL DEFAULT true,
  ADD COLUMN may_correct boolean NOT NULL DEFAULT true,
  ADD CONSTRAINT queue_event_types_named CHECK (cardinality(event_types) BETWEEN 1 AND 100
    AND array_ndims(event_types) = 1 AND array_position(event_types, NULL) IS NULL),
  ADD CONSTRAINT queue_producers_named CHECK (cardinality(producers) BETWEEN 1 AND 100
    AND array_ndims(producers) = 1 AND array_position(producers, NULL) IS NULL);
COMMENT ON COLUMN queue.event_types IS 'The event types that it may carry, besides voids; NULL: any.';
COMMENT ON COLUMN queue.producers IS 'As which producers its events may be sent, and whose messages they may void, as api_key.producers; NULL: any.';
COMMENT ON COLUMN queue.may_void IS 'Whether it may carry events of type void.';
COMMENT ON COLUMN queue.may_correct IS 'Whether it may carry negative amounts where a meter adds them.';

-- Code that knows nothing of these rights would store what they refuse. It calls the function with two arguments, which
-- refuses as soon as a queue has not all of them.
CREATE FUNCTION registry_version_held(counts_usage boolean, reads_queues boolean, keeps_rights boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
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
  IF NOT keeps_rights AND EXISTS (
    SELECT FROM queue WHERE NOT (may_void AND may_correct) OR num_nonnulls(event_types, producers) > 0) THEN
    RAISE EXCEPTION 'there are queues without all rights, and this processor is too old to keep to them'
      USING ERRCODE = 'insufficient_privilege', HINT = 'run the release that the tables are of';
  END IF;
  RETURN (SELECT version FROM registry);
END $$;
COMMENT ON FUNCTION registry_version_held(boolean, boolean, boolean) IS 'Keeps the registry from changing until the end of this transaction, and gives its version; counts_usage says that the caller raises totals, reads_queues that it reads by the table queue, keeps_rights that it refuses what a queue may not carry.';
CREATE OR REPLACE FUNCTION registry_version_held(counts_usage boolean, reads_queues boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN registry_version_held(counts_usage, reads_queues, false);
END $$;
COMMENT ON FUNCTION registry_version_held(boolean, boolean) IS 'As registry_version_held(counts_usage, reads_queues, false): for code that is older than the rights of a queue.';

DO $$
BEGIN
  -- CREATE OR REPLACE forgets it.
  EXECUTE format('ALTER FUNCTION api_key_stays() SET search_path = %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION registry_version_held(boolean, boolean) SET search_path = %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION registry_version_held(boolean, boolean, boolean) SET search_path = %I, pg_temp', current_schema());
  PERFORM keep_locks_apart();
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT EXECUTE ON FUNCTION registry_version_held(boolean, boolean, boolean) TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_gateway') THEN
    -- Which names are those of events with an id scope, and which amounts may be negative.
    GRANT SELECT ON event_type, meter TO processor_gateway;
  END IF;
END $$;
