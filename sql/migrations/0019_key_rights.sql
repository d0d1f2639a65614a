-- What a key may send: event types, producers, and whether it may void or correct what counts. Keys that exist go on to
-- do what they could; those that are added from now on may neither void nor correct unless that is said.

-- The column of a key waits for readers of api_key alone, which are gateways: rather fail than wait for long, and be run again.
SET LOCAL lock_timeout = '10s';

ALTER TABLE api_key
  ADD COLUMN event_types text[] NULL,
  ADD COLUMN producers   text[] NULL,
  ADD COLUMN may_void    boolean NOT NULL DEFAULT true,
  ADD COLUMN may_correct boolean NOT NULL DEFAULT true,
  ADD CONSTRAINT api_key_event_types_named CHECK (cardinality(event_types) BETWEEN 1 AND 100
    AND array_ndims(event_types) = 1 AND array_position(event_types, NULL) IS NULL),
  ADD CONSTRAINT api_key_producers_named CHECK (cardinality(producers) BETWEEN 1 AND 100
    AND array_ndims(producers) = 1 AND array_position(producers, NULL) IS NULL);
ALTER TABLE api_key ALTER COLUMN may_void SET DEFAULT false, ALTER COLUMN may_correct SET DEFAULT false;
COMMENT ON COLUMN api_key.event_types IS 'The event types that it may send, besides voids; NULL: any.';
COMMENT ON COLUMN api_key.producers IS 'As which producers it may send, and whose messages it may void: a name with * at its end stands for all that begin so, the empty name for events that name no producer. NULL: any that is not reserved, by RESERVED_PRODUCERS or by a key of the tenant that is in force, is older and names it.';
COMMENT ON COLUMN api_key.may_void IS 'Whether it may send events of type void, which cancel what another message of its producers had counted.';
COMMENT ON COLUMN api_key.may_correct IS 'Whether it may send negative amounts where a meter adds them (meter.allows_corrections).';

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

DO $$
BEGIN
  -- CREATE OR REPLACE forgets it.
  EXECUTE format('ALTER FUNCTION api_key_stays() SET search_path = %I, pg_temp', current_schema());
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_gateway') THEN
    -- Which names are those of events with an id scope, and which amounts may be negative.
    GRANT SELECT ON event_type, meter TO processor_gateway;
  END IF;
END $$;
