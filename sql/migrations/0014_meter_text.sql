-- Amounts that stand in quotes count where a meter allows it, and a run can tell what it has stored itself from what
-- was there before.

-- No save is under way once this is ours, so that none can meet the locks below in another order. Nobody waits
-- long for it: rather fail, leave nothing behind, and be run again.
SET LOCAL lock_timeout = '10s';
SELECT pg_advisory_xact_lock(registry_lock_key());

ALTER TABLE meter ADD COLUMN text_amounts_from timestamptz NULL,
  ADD CONSTRAINT meter_text_amounts_summed CHECK (text_amounts_from IS NULL OR aggregation = 'sum');
COMMENT ON COLUMN meter.text_amounts_from IS 'Amounts in quotes count, as the numbers that they spell, in messages with stored_at from here on; older ones by processor usage rebuild alone. -infinity: in all that the meter counts. NULL: they are misses (value_not_a_number). Once set it stays.';
COMMENT ON COLUMN usage_rebuild.rebuilt_at IS 'When it was asked for: first, or again once the meter had begun to count amounts in quotes.';

CREATE FUNCTION text_amount(amount text) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN CASE WHEN char_length(amount) <= 1000
    AND amount ~ '^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?0*[0-9]{1,3})?$' THEN amount::numeric END;
COMMENT ON FUNCTION text_amount(text) IS 'The number that a text spells as JSON does; NULL: it spells none, or one of more than 1000 characters or of an exponent beyond 999.';

-- As in 0006, but that a meter may begin to count amounts in quotes: nothing that it has counted changes by that.
CREATE OR REPLACE FUNCTION meter_stays() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  -- The last six are made by themselves, and not yet made here.
  free text[] := ARRAY['status', 'active_from', 'retired_at', 'grace', 'is_handed_over', 'text_amounts_from',
    'value_path', 'group_path_1', 'group_path_2', 'group_path_3', 'group_path_4', 'window_length'];
BEGIN
  IF to_jsonb(NEW) - free <> to_jsonb(OLD) - free OR (OLD.status = 'retired' AND NEW.status <> 'retired')
    -- 'infinity' becomes the moment of the commit.
    OR (NEW.text_amounts_from IS DISTINCT FROM OLD.text_amounts_from
      AND coalesce(OLD.text_amounts_from, 'infinity') <> 'infinity')
    OR (OLD.text_amounts_from IS NULL AND NEW.text_amounts_from <> 'infinity') THEN
    RAISE EXCEPTION 'meter % stays what it is: its totals were made by it', OLD.meter
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'meter_stays',
        HINT = 'retire it (UPDATE meter SET status = ''retired'' ...) and add another under a new name';
  END IF;
  RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION meter_begins_or_ends() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(registry_lock_key());
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
DROP TRIGGER meter_begins_or_ends ON meter;
CREATE CONSTRAINT TRIGGER meter_begins_or_ends AFTER INSERT OR UPDATE OF status, text_amounts_from ON meter
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meter_begins_or_ends();
DO $$
BEGIN
  -- CREATE OR REPLACE forgets these.
  EXECUTE format('ALTER FUNCTION meter_stays() SET search_path = %I, pg_temp', current_schema());
  EXECUTE format('ALTER FUNCTION meter_begins_or_ends() SET search_path = %I, pg_temp', current_schema());
END $$;

-- As in 0006, with amounts in quotes.
CREATE OR REPLACE FUNCTION metered(
  of_tenant text, of_message text, of_producer text, of_type text, payload jsonb, counted_at timestamptz, stored_at timestamptz
) RETURNS TABLE (
  meter_id int, window_start timestamptz, closes_at timestamptz, group_key text, value numeric, miss text
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT
    measured.meter_id, measured.window_start, measured.window_start + measured.window_length + measured.grace,
    measured.group_key, measured.value,
    CASE
      WHEN counted_at < stored_at - measured.past_limit THEN 'too_old'
      WHEN counted_at > stored_at + measured.future_limit THEN 'too_new'
      WHEN measured.value IS NULL THEN
        CASE WHEN payload #> measured.value_path IS NULL THEN 'value_missing' ELSE 'value_not_a_number' END
      WHEN measured.value < 0 AND NOT measured.allows_corrections THEN 'value_negative'
      WHEN measured.value >= 1e38 OR measured.value <= -1e38 OR scale(measured.value) > 38 THEN 'value_out_of_bounds'
      -- A pointer that leads nowhere is as good as one to null.
      WHEN num_nonnulls(measured.group_1, measured.group_2, measured.group_3, measured.group_4)
        < cardinality(measured.group_names) THEN
        CASE WHEN 'object' IN (jsonb_typeof(payload #> group_path_1), jsonb_typeof(payload #> group_path_2),
            jsonb_typeof(payload #> group_path_3), jsonb_typeof(payload #> group_path_4))
          OR 'array' IN (jsonb_typeof(payload #> group_path_1), jsonb_typeof(payload #> group_path_2),
            jsonb_typeof(payload #> group_path_3), jsonb_typeof(payload #> group_path_4))
          THEN 'group_not_a_scalar' ELSE 'group_missing' END
      WHEN octet_length(measured.group_key) > 1024 THEN 'group_too_long'
    END
  FROM (
    SELECT grouped.*,
      CASE WHEN aggregation = 'count' THEN 1
        WHEN jsonb_typeof(payload #> value_path) = 'number' THEN (payload #> value_path)::numeric
        WHEN text_amounts_from IS NOT NULL AND jsonb_typeof(payload #> value_path) = 'string'
          AND (stored_at >= text_amounts_from OR EXISTS (
            SELECT FROM usage_rebuild
            WHERE usage_rebuild.meter_id = grouped.meter_id AND rebuilt_at >= text_amounts_from
              AND grouped.window_start >= window_from AND grouped.window_start < window_until))
          THEN text_amount(payload #>> value_path) END AS value,
      CASE cardinality(group_names)
        WHEN 0 THEN '{}'
        WHEN 1 THEN jsonb_build_object(group_names[1], group_1)::text
        WHEN 2 THEN jsonb_build_object(group_names[1], group_1, group_names[2], group_2)::text
        WHEN 3 THEN jsonb_build_object(group_names[1], group_1, group_names[2], group_2, group_names[3], group_3)::text
        ELSE jsonb_build_object(
          group_names[1], group_1, group_names[2], group_2, group_names[3], group_3, group_names[4], group_4)::text
      END AS group_key
    FROM (
      SELECT meter.*,
        CASE window_size WHEN 'none' THEN timestamptz 'epoch'
          -- In UTC whatever the session's time zone; nothing is earlier than that origin.
          ELSE date_bin(window_length, counted_at, timestamptz '0001-01-01 00:00:00+00') END AS window_start,
        group_text(payload, group_path_1) AS group_1,
        CASE WHEN cardinality(group_names) >= 2 THEN group_text(payload, group_path_2) END AS group_2,
        CASE WHEN cardinality(group_names) >= 3 THEN group_text(payload, group_path_3) END AS group_3,
        CASE WHEN cardinality(group_names) >= 4 THEN group_text(payload, group_path_4) END AS group_4
      FROM meter
      WHERE meter.event_type = of_type AND (meter.tenant_id IS NULL OR meter.tenant_id = of_tenant)
        AND (meter.retired_at IS NULL OR stored_at < meter.retired_at)
      -- OFFSET 0, here and below: what is worked out is worked out once.
      OFFSET 0
    ) AS grouped
    OFFSET 0
  ) AS measured
  WHERE (stored_at >= measured.active_from OR EXISTS (
      SELECT FROM usage_rebuild
      WHERE usage_rebuild.meter_id = measured.meter_id
        AND measured.window_start >= window_from AND measured.window_start < window_until))
    -- A void cancels what is counted, and can't itself be cancelled. The first question is asked once a query.
    AND (of_type = 'void' OR (SELECT 1 FROM voided LIMIT 1) IS NULL OR (
      SELECT 1 FROM voided
      WHERE voided.tenant_id = of_tenant AND voided.message_id = of_message AND voided.producer = of_producer
      LIMIT 1) IS NULL)
$$;

CREATE TABLE run_message (
  run_id     text COLLATE "C" NOT NULL,
  tenant_id  text COLLATE "C" NOT NULL,
  message_id text COLLATE "C" NOT NULL,
  producer   text COLLATE "C" NOT NULL,
  noted_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT run_message_pkey PRIMARY KEY (run_id, tenant_id, message_id, producer)
);
COMMENT ON TABLE run_message IS 'The messages that a run with --this-run has stored, noted in the transactions that stored them, until its counts are written.';
COMMENT ON COLUMN run_message.run_id IS 'The run, by a name made by chance.';
COMMENT ON COLUMN run_message.tenant_id IS 'The tenant of the message.';
COMMENT ON COLUMN run_message.message_id IS 'The id of the message.';
COMMENT ON COLUMN run_message.producer IS 'The producer of the message.';
COMMENT ON COLUMN run_message.noted_at IS 'When the transaction began. What a run that came to no counts has left goes after KEY_RETENTION_DAYS.';
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT SELECT, INSERT, DELETE ON run_message TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON run_message TO processor_reader;
  END IF;
END $$;
