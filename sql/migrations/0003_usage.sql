-- Usage: sums and counts of messages, raised in the transaction that stores them, closed by window, and handed over as
-- lines. No part is computed later in another place, where it could be lost or counted twice.

-- Payloads that differ only in the spelling of a number are the same message, so they must give the same group.
CREATE FUNCTION group_text(payload jsonb, path text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN CASE jsonb_typeof(payload #> path)
    WHEN 'string' THEN payload #>> path
    WHEN 'number' THEN trim_scale((payload #> path)::numeric)::text
    WHEN 'boolean' THEN payload #>> path END;
COMMENT ON FUNCTION group_text(jsonb, text[]) IS 'What stands in a group key for the value that a path leads to: a text as it is, a number without idle zeros; NULL for what can''t stand there.';
CREATE FUNCTION text_amount(amount text) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN CASE WHEN char_length(amount) <= 1000
    AND amount ~ '^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?0*[0-9]{1,3})?$' THEN amount::numeric END;
COMMENT ON FUNCTION text_amount(text) IS 'The number that a text spells as JSON does; NULL: it spells none, or one of more than 1000 characters or of an exponent beyond 999.';

CREATE TABLE meter (
  meter_id           int GENERATED ALWAYS AS IDENTITY CONSTRAINT meter_pkey PRIMARY KEY,
  meter              text COLLATE "C" NOT NULL,
  tenant_id          text COLLATE "C" NULL CONSTRAINT meter_tenant_fkey REFERENCES tenant,
  event_type         text COLLATE "C" NOT NULL CONSTRAINT meter_event_type_fkey REFERENCES event_type,
  aggregation        text NOT NULL,
  value_pointer      text NULL,
  group_names        text[] NOT NULL DEFAULT '{}',
  group_pointers     text[] NOT NULL DEFAULT '{}',
  window_size        text NOT NULL DEFAULT 'hour',
  grace              interval NOT NULL DEFAULT '15 minutes',
  past_limit         interval NULL DEFAULT '92 days',
  future_limit       interval NULL DEFAULT '1 hour',
  allows_corrections boolean NOT NULL DEFAULT false,
  is_handed_over     boolean NOT NULL DEFAULT false,
  status             text NOT NULL DEFAULT 'active',
  created_at         timestamptz NOT NULL DEFAULT now(),
  active_from        timestamptz NOT NULL DEFAULT 'infinity',
  retired_at         timestamptz NULL,
  value_path         text[] NULL GENERATED ALWAYS AS (json_path_of(value_pointer)) STORED,
  group_path_1       text[] NULL GENERATED ALWAYS AS (json_path_of(group_pointers[1])) STORED,
  group_path_2       text[] NULL GENERATED ALWAYS AS (json_path_of(group_pointers[2])) STORED,
  group_path_3       text[] NULL GENERATED ALWAYS AS (json_path_of(group_pointers[3])) STORED,
  group_path_4       text[] NULL GENERATED ALWAYS AS (json_path_of(group_pointers[4])) STORED,
  window_length      interval NULL GENERATED ALWAYS AS (
    CASE window_size WHEN 'hour' THEN interval '1 hour' WHEN 'day' THEN interval '24 hours' END) STORED,
  text_amounts_from  timestamptz NULL,
  CONSTRAINT meter_name_key UNIQUE NULLS NOT DISTINCT (meter, tenant_id),
  CONSTRAINT meter_name_fit CHECK (meter ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  CONSTRAINT meter_aggregation_known CHECK (aggregation IN ('sum', 'count')),
  CONSTRAINT meter_value_pointer_asked CHECK ((aggregation = 'sum') = (value_pointer IS NOT NULL)),
  CONSTRAINT meter_value_pointer_fit CHECK (json_pointer_fits(value_pointer)),
  CONSTRAINT meter_groups_paired CHECK (cardinality(group_names) = cardinality(group_pointers)
    AND cardinality(group_names) <= 4 AND array_position(group_names, NULL) IS NULL
    AND array_position(group_pointers, NULL) IS NULL),
  -- Valid as a field name of a handed-over line, and not the name of an existing field.
  CONSTRAINT meter_group_names_fit CHECK (
    array_to_string(group_names, ',') ~ '^([a-z_][a-z0-9_]{0,62}(,[a-z_][a-z0-9_]{0,62})*)?$'
    AND cardinality(string_to_array(array_to_string(group_names, ','), ',')) = cardinality(group_names)
    AND NOT group_names && ARRAY[
      'tenant_id', 'window_start', 'window_end', 'revision', 'messages', 'key', 'value', 'meter', 'group']),
  CONSTRAINT meter_group_names_distinct CHECK ((group_names[1] <> ALL (group_names[2:4])) IS NOT false
    AND (group_names[2] <> ALL (group_names[3:4])) IS NOT false AND (group_names[3] <> group_names[4]) IS NOT false),
  CONSTRAINT meter_group_pointers_fit CHECK (json_pointer_fits(group_pointers[1]) IS NOT false
    AND json_pointer_fits(group_pointers[2]) IS NOT false AND json_pointer_fits(group_pointers[3]) IS NOT false
    AND json_pointer_fits(group_pointers[4]) IS NOT false),
  CONSTRAINT meter_window_size_known CHECK (window_size IN ('hour', 'day', 'none')),
  CONSTRAINT meter_grace_bounded CHECK (grace BETWEEN interval '0' AND interval '92 days'),
  CONSTRAINT meter_past_limit_bounded CHECK (past_limit BETWEEN interval '0' AND interval '3660 days'),
  CONSTRAINT meter_future_limit_bounded CHECK (future_limit BETWEEN interval '0' AND interval '3660 days'),
  CONSTRAINT meter_handed_over_by_window CHECK (window_size <> 'none' OR NOT is_handed_over),
  CONSTRAINT meter_status_known CHECK (status IN ('active', 'retired')),
  CONSTRAINT meter_text_amounts_summed CHECK (text_amounts_from IS NULL OR aggregation = 'sum')
);
CREATE INDEX meter_event_type_idx ON meter (event_type);
COMMENT ON TABLE meter IS 'What is counted: of which event type, what to add, and what to group by. To change a meter, retire it and add another: what was counted by it stays.';
COMMENT ON COLUMN meter.meter_id IS 'Names the meter in the other tables.';
COMMENT ON COLUMN meter.meter IS 'The name by which people ask for it; no tenant has one named as a shared one.';
COMMENT ON COLUMN meter.tenant_id IS 'The tenant whose own meter this is; NULL: it counts for every tenant.';
COMMENT ON COLUMN meter.event_type IS 'The event type whose messages it counts.';
COMMENT ON COLUMN meter.aggregation IS 'sum: adds the numbers that value_pointer leads to. count: adds one for each message.';
COMMENT ON COLUMN meter.value_pointer IS 'JSON pointer into the payload, to the number to add; NULL for count.';
COMMENT ON COLUMN meter.group_names IS 'What the values to group by are called, at most four; empty: one total for each tenant and window.';
COMMENT ON COLUMN meter.group_pointers IS 'JSON pointers into the payload, one for each name; they lead to texts, numbers or booleans.';
COMMENT ON COLUMN meter.window_size IS 'hour or day, in UTC; none: one total for ever, which never closes.';
COMMENT ON COLUMN meter.grace IS 'How long after its end a window waits for stragglers before it closes.';
COMMENT ON COLUMN meter.past_limit IS 'An event that was this long ago when it was stored is a miss (too_old); NULL: never.';
COMMENT ON COLUMN meter.future_limit IS 'An event this far ahead of the clock when it was stored is a miss (too_new); NULL: never.';
COMMENT ON COLUMN meter.allows_corrections IS 'Whether the numbers may be negative. If not, such an event is rejected as schema_violation.';
COMMENT ON COLUMN meter.is_handed_over IS 'Whether processor dispatch hands its closed windows to the sink.';
COMMENT ON COLUMN meter.status IS 'active, or retired: counts nothing that is stored from then on, for ever.';
COMMENT ON COLUMN meter.created_at IS 'When the transaction that added it began.';
COMMENT ON COLUMN meter.active_from IS 'It counts the messages with stored_at from here on; older ones by processor usage rebuild alone. Set at the commit, when no save is under way.';
COMMENT ON COLUMN meter.retired_at IS 'It counts no message with stored_at from here on; NULL while active. Set at the commit, when no save is under way.';
COMMENT ON COLUMN meter.value_path IS 'value_pointer in steps; made by itself.';
COMMENT ON COLUMN meter.group_path_1 IS 'The first of group_pointers in steps; made by itself.';
COMMENT ON COLUMN meter.group_path_2 IS 'The second of group_pointers in steps; made by itself.';
COMMENT ON COLUMN meter.group_path_3 IS 'The third of group_pointers in steps; made by itself.';
COMMENT ON COLUMN meter.group_path_4 IS 'The fourth of group_pointers in steps; made by itself.';
COMMENT ON COLUMN meter.window_length IS 'window_size as a length; made by itself.';
COMMENT ON COLUMN meter.text_amounts_from IS 'Amounts in quotes count, as the numbers that they spell, in messages with stored_at from here on; older ones by processor usage rebuild alone. -infinity: in all that the meter counts. NULL: they are misses (value_not_a_number). Once set it stays.';

-- The definition of a meter gives its totals their meaning, so it can't change, except that it may begin to count
-- amounts in quotes, which changes no counted message. Whether a meter counts a message depends on timestamps that are
-- taken while no save is running: each save has either seen the meter or ended before.
CREATE FUNCTION meter_stays() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  -- The last six columns are generated, and not computed yet in this trigger.
  free text[] := ARRAY['status', 'active_from', 'retired_at', 'grace', 'is_handed_over', 'text_amounts_from',
    'value_path', 'group_path_1', 'group_path_2', 'group_path_3', 'group_path_4', 'window_length'];
BEGIN
  IF to_jsonb(NEW) - free <> to_jsonb(OLD) - free OR (OLD.status = 'retired' AND NEW.status <> 'retired')
    -- 'infinity' is replaced by the time of the commit.
    OR (NEW.text_amounts_from IS DISTINCT FROM OLD.text_amounts_from
      AND coalesce(OLD.text_amounts_from, 'infinity') <> 'infinity')
    OR (OLD.text_amounts_from IS NULL AND NEW.text_amounts_from <> 'infinity') THEN
    RAISE EXCEPTION 'meter % stays what it is: its totals were made by it', OLD.meter
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'meter_stays',
        HINT = 'retire it (UPDATE meter SET status = ''retired'' ...) and add another under a new name';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meter_stays() IS 'Refuses to change what a meter counts, or to wake a retired one.';
CREATE TRIGGER meter_stays BEFORE UPDATE ON meter FOR EACH ROW EXECUTE FUNCTION meter_stays();

CREATE FUNCTION meter_begins_or_ends() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
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
COMMENT ON FUNCTION meter_begins_or_ends() IS 'Sets from when, or until when, a meter counts, at the commit and while no save is under way.';
-- By its name it fires before meter_changed and meter_pulse_lines_clear, which need the lock and the timestamps.
CREATE CONSTRAINT TRIGGER meter_begins_or_ends AFTER INSERT OR UPDATE OF status, text_amounts_from ON meter
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meter_begins_or_ends();
CREATE CONSTRAINT TRIGGER meter_changed AFTER INSERT OR UPDATE OR DELETE ON meter
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE TRIGGER meter_truncated AFTER TRUNCATE ON meter EXECUTE FUNCTION registry_changed();

CREATE TABLE total (
  tenant_id    text COLLATE "C" NOT NULL,
  meter_id     int NOT NULL,
  window_start timestamptz NOT NULL,
  group_key    text COLLATE "C" NOT NULL,
  slot         smallint NOT NULL,
  value        numeric NOT NULL,
  messages     bigint NOT NULL,
  first_at     timestamptz NOT NULL,
  last_at      timestamptz NOT NULL,
  closes_at    timestamptz NULL,
  is_closed    boolean NOT NULL DEFAULT false,
  CONSTRAINT total_pkey PRIMARY KEY (tenant_id, meter_id, window_start, group_key, slot)
) WITH (fillfactor = 80);
COMMENT ON TABLE total IS 'What a meter has counted, by tenant, window and group, raised in the transaction that stores the messages. A total that many write at once is spread over slots: ask the view usage, which adds them.';
COMMENT ON COLUMN total.tenant_id IS 'The tenant of the messages.';
COMMENT ON COLUMN total.meter_id IS 'The meter.';
COMMENT ON COLUMN total.window_start IS 'When the window begins (UTC); 1970-01-01 for a meter without windows.';
COMMENT ON COLUMN total.group_key IS 'The values that the meter groups by, as a JSON object of texts.';
COMMENT ON COLUMN total.slot IS '0, or the part of it that one of several writers raises.';
COMMENT ON COLUMN total.value IS 'The sum, to the last digit, or the count.';
COMMENT ON COLUMN total.messages IS 'How many messages it is made of.';
COMMENT ON COLUMN total.first_at IS 'The earliest time of an event in it. A void leaves it as it is.';
COMMENT ON COLUMN total.last_at IS 'The latest time of an event in it. A void leaves it as it is.';
COMMENT ON COLUMN total.closes_at IS 'When the window may close: its end, and the grace that the meter had when the total began; NULL: never.';
COMMENT ON COLUMN total.is_closed IS 'Whether usage_line has all of it. A late event or a void makes it false again, and then there is a new revision.';
-- Neither column changes while a window is open, so that raising a total updates no index.
CREATE INDEX total_closing_idx ON total (closes_at) WHERE NOT is_closed AND closes_at IS NOT NULL;

CREATE TABLE meter_miss (
  tenant_id       text COLLATE "C" NOT NULL,
  meter_id        int NOT NULL,
  reason          text COLLATE "C" NOT NULL,
  schema_id       bigint NOT NULL,
  slot            smallint NOT NULL,
  messages        bigint NOT NULL,
  first_at        timestamptz NOT NULL,
  last_at         timestamptz NOT NULL,
  last_message_id text COLLATE "C" NOT NULL,
  CONSTRAINT meter_miss_pkey PRIMARY KEY (tenant_id, meter_id, reason, schema_id, slot),
  CONSTRAINT meter_miss_reason_known CHECK (reason IN (
    'value_missing', 'value_not_a_number', 'value_negative', 'value_out_of_bounds',
    'group_missing', 'group_not_a_scalar', 'group_too_long', 'too_old', 'too_new'))
);
COMMENT ON TABLE meter_miss IS 'Messages that are stored and that a meter could not count: how many, why, and by which schema they were valid.';
COMMENT ON COLUMN meter_miss.tenant_id IS 'The tenant of the messages.';
COMMENT ON COLUMN meter_miss.meter_id IS 'The meter.';
COMMENT ON COLUMN meter_miss.reason IS 'Why, in one word of a fixed list.';
COMMENT ON COLUMN meter_miss.schema_id IS 'The event_schema that let the payload pass, and should forbid it; too_old and too_new are no schema''s business.';
COMMENT ON COLUMN meter_miss.slot IS '0, or the part of it that one of several writers raises.';
COMMENT ON COLUMN meter_miss.messages IS 'How many messages.';
COMMENT ON COLUMN meter_miss.first_at IS 'When the first of them was stored.';
COMMENT ON COLUMN meter_miss.last_at IS 'When the last of them was stored.';
COMMENT ON COLUMN meter_miss.last_message_id IS 'One of the last of them, to look at.';

CREATE TABLE voided (
  tenant_id  text COLLATE "C" NOT NULL,
  message_id text COLLATE "C" NOT NULL,
  producer   text COLLATE "C" NOT NULL,
  void_id    text COLLATE "C" NOT NULL,
  voided_at  timestamptz NOT NULL,
  CONSTRAINT voided_pkey PRIMARY KEY (tenant_id, message_id, producer)
);
COMMENT ON TABLE voided IS 'Messages that a void cancels, whether they are here or still to come. They count in no meter; their rows in message stay.';
COMMENT ON COLUMN voided.tenant_id IS 'The tenant of both.';
COMMENT ON COLUMN voided.message_id IS 'The id of the message that counts no more.';
COMMENT ON COLUMN voided.producer IS 'The producer of the message that counts no more.';
COMMENT ON COLUMN voided.void_id IS 'The message_id of the void.';
COMMENT ON COLUMN voided.voided_at IS 'When the void was stored.';

CREATE TABLE usage_rebuild (
  meter_id     int NOT NULL CONSTRAINT usage_rebuild_meter_fkey REFERENCES meter ON DELETE CASCADE,
  window_from  timestamptz NOT NULL,
  window_until timestamptz NOT NULL,
  rebuilt_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT usage_rebuild_pkey PRIMARY KEY (meter_id, window_from, window_until),
  CONSTRAINT usage_rebuild_forward CHECK (window_from < window_until)
);
COMMENT ON TABLE usage_rebuild IS 'Windows in which a meter counts messages that were stored before it was active too, since processor usage rebuild.';
COMMENT ON COLUMN usage_rebuild.meter_id IS 'The meter.';
COMMENT ON COLUMN usage_rebuild.window_from IS 'The first window begins then or later.';
COMMENT ON COLUMN usage_rebuild.window_until IS 'The last window begins before.';
COMMENT ON COLUMN usage_rebuild.rebuilt_at IS 'When it was asked for: first, or again once the meter had begun to count amounts in quotes.';
-- A concurrent void must know whether the message that it cancels was counted.
CREATE CONSTRAINT TRIGGER usage_rebuild_changed AFTER INSERT OR UPDATE OR DELETE ON usage_rebuild
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE TRIGGER usage_rebuild_truncated AFTER TRUNCATE ON usage_rebuild EXECUTE FUNCTION registry_changed();

CREATE TABLE usage_removal (
  tenant_id    text COLLATE "C" NOT NULL,
  meter_id     int NOT NULL,
  window_start timestamptz NOT NULL,
  group_key    text COLLATE "C" NOT NULL,
  value        numeric NOT NULL,
  messages     bigint NOT NULL,
  removed_at   timestamptz NOT NULL,
  CONSTRAINT usage_removal_pkey PRIMARY KEY (tenant_id, meter_id, window_start, group_key)
);
COMMENT ON TABLE usage_removal IS 'What the messages that retention removed had added to each total; written in the transaction that removes them. processor usage verify adds it to what the remaining messages say.';
COMMENT ON COLUMN usage_removal.tenant_id IS 'The tenant of the messages.';
COMMENT ON COLUMN usage_removal.meter_id IS 'The meter.';
COMMENT ON COLUMN usage_removal.window_start IS 'When the window begins (UTC).';
COMMENT ON COLUMN usage_removal.group_key IS 'The values that the meter groups by, as a JSON object of texts.';
COMMENT ON COLUMN usage_removal.value IS 'What they had added.';
COMMENT ON COLUMN usage_removal.messages IS 'How many they were.';
COMMENT ON COLUMN usage_removal.removed_at IS 'When the last of them was removed.';

-- The only definition of what each meter counts of a message, for saves, voids, verify, rebuild and retention. Without
-- SET and SECURITY DEFINER, which would prevent inlining into the query.
CREATE FUNCTION metered(
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
      -- A pointer without a value is treated like one to null.
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
          -- In UTC for every session time zone. No message is earlier than this origin.
          ELSE date_bin(window_length, counted_at, timestamptz '0001-01-01 00:00:00+00') END AS window_start,
        group_text(payload, group_path_1) AS group_1,
        CASE WHEN cardinality(group_names) >= 2 THEN group_text(payload, group_path_2) END AS group_2,
        CASE WHEN cardinality(group_names) >= 3 THEN group_text(payload, group_path_3) END AS group_3,
        CASE WHEN cardinality(group_names) >= 4 THEN group_text(payload, group_path_4) END AS group_4
      FROM meter
      WHERE meter.event_type = of_type AND (meter.tenant_id IS NULL OR meter.tenant_id = of_tenant)
        AND (meter.retired_at IS NULL OR stored_at < meter.retired_at)
      -- OFFSET 0, here and below, makes PostgreSQL compute each expression only once.
      OFFSET 0
    ) AS grouped
    OFFSET 0
  ) AS measured
  WHERE (stored_at >= measured.active_from OR EXISTS (
      SELECT FROM usage_rebuild
      WHERE usage_rebuild.meter_id = measured.meter_id
        AND measured.window_start >= window_from AND measured.window_start < window_until))
    -- A void cancels a counted message, and can't itself be cancelled. The first subquery runs once per query.
    AND (of_type = 'void' OR (SELECT 1 FROM voided LIMIT 1) IS NULL OR (
      SELECT 1 FROM voided
      WHERE voided.tenant_id = of_tenant AND voided.message_id = of_message AND voided.producer = of_producer
      LIMIT 1) IS NULL)
$$;
COMMENT ON FUNCTION metered(text, text, text, text, jsonb, timestamptz, timestamptz) IS 'What each meter counts of one message: in which window and group, how much, and why not (miss). Nothing for a message that was voided, or that was stored before the meter was active.';

-- For verify and rebuild. An argument that is NULL does not filter; the planner removes its condition.
CREATE FUNCTION metered_totals(
  of_tenant text, of_meters int[], of_types text[], window_from timestamptz, window_until timestamptz,
  stored_from timestamptz, stored_until timestamptz
) RETURNS TABLE (
  tenant_id text, meter_id int, window_start timestamptz, group_key text, miss text,
  value numeric, messages bigint, first_at timestamptz, last_at timestamptz
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT
    message.tenant_id, metered.meter_id, metered.window_start,
    -- Misses have no group, since there might be as many groups as messages.
    CASE WHEN metered.miss IS NULL THEN metered.group_key END, metered.miss,
    sum(metered.value), count(*), min(coalesce(occurred_at, sent_at)), max(coalesce(occurred_at, sent_at))
  FROM message
  CROSS JOIN LATERAL metered(
    message.tenant_id, message_id, producer, event_type, payload, coalesce(occurred_at, sent_at), stored_at)
  WHERE (of_tenant IS NULL OR message.tenant_id = of_tenant)
    AND (of_types IS NULL OR event_type = ANY (of_types))
    AND (stored_from IS NULL OR stored_at >= stored_from)
    AND (stored_until IS NULL OR stored_at < stored_until)
    AND (of_meters IS NULL OR metered.meter_id = ANY (of_meters))
    AND (window_from IS NULL OR metered.window_start >= window_from)
    AND (window_until IS NULL OR metered.window_start < window_until)
  GROUP BY 1, 2, 3, 4, 5
$$;
COMMENT ON FUNCTION metered_totals(text, int[], text[], timestamptz, timestamptz, timestamptz, timestamptz) IS 'What the stored messages come to by tenant, meter, window and group, and what could not be counted of them (miss): all of them, or those of a tenant, of meters, of event types, of windows, stored between two moments.';

CREATE TABLE reopened_window (
  meter_id     int NOT NULL CONSTRAINT reopened_window_meter_fkey REFERENCES meter ON DELETE CASCADE,
  window_start timestamptz NOT NULL,
  reopened_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT reopened_window_pkey PRIMARY KEY (meter_id, window_start)
);
COMMENT ON TABLE reopened_window IS 'Windows that a person keeps open beyond their grace (processor usage reopen), until processor usage close.';
COMMENT ON COLUMN reopened_window.meter_id IS 'The meter.';
COMMENT ON COLUMN reopened_window.window_start IS 'When the window begins (UTC).';
COMMENT ON COLUMN reopened_window.reopened_at IS 'When it was reopened.';

CREATE TABLE usage_batch (
  batch_id        bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT usage_batch_pkey PRIMARY KEY,
  batch_key       text COLLATE "C" NOT NULL,
  line_count      int NOT NULL,
  attempt_count   int NOT NULL DEFAULT 0,
  created_at      timestamptz NOT NULL DEFAULT now(),
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  handed_over_at  timestamptz NULL,
  trouble         text NULL,
  CONSTRAINT usage_batch_key UNIQUE (batch_key),
  CONSTRAINT usage_batch_line_count_positive CHECK (line_count >= 1)
);
COMMENT ON TABLE usage_batch IS 'Lines that are handed over in one request. A batch is written down before it is sent, so that a retry sends the same again under the same key.';
COMMENT ON COLUMN usage_batch.batch_id IS 'Names the batch in usage_line.';
COMMENT ON COLUMN usage_batch.batch_key IS 'The idempotency key: made of the keys of its lines, the same for the same lines.';
COMMENT ON COLUMN usage_batch.line_count IS 'How many lines it was made of.';
COMMENT ON COLUMN usage_batch.attempt_count IS 'How often it was sent.';
COMMENT ON COLUMN usage_batch.created_at IS 'When it was put together.';
COMMENT ON COLUMN usage_batch.next_attempt_at IS 'Not to be sent again before then.';
COMMENT ON COLUMN usage_batch.handed_over_at IS 'When it was done with: the sink had accepted it, or its remaining lines went into other batches; NULL: not yet.';
COMMENT ON COLUMN usage_batch.trouble IS 'What the last attempt met, without a word of what the sink said; NULL: nothing.';
CREATE INDEX usage_batch_waiting_idx ON usage_batch (next_attempt_at) WHERE handed_over_at IS NULL;

CREATE TABLE usage_line (
  tenant_id      text COLLATE "C" NOT NULL,
  meter_id       int NOT NULL CONSTRAINT usage_line_meter_fkey REFERENCES meter,
  window_start   timestamptz NOT NULL,
  group_key      text COLLATE "C" NOT NULL,
  revision       int NOT NULL,
  value          numeric NOT NULL,
  messages       bigint NOT NULL,
  total_value    numeric NOT NULL,
  total_messages bigint NOT NULL,
  closed_at      timestamptz NOT NULL DEFAULT now(),
  batch_id       bigint NULL CONSTRAINT usage_line_batch_fkey REFERENCES usage_batch,
  handed_over_at timestamptz NULL,
  trouble        text NULL,
  -- Random, so that a key never stands for other content.
  line_key       text COLLATE "C" NULL,
  CONSTRAINT usage_line_pkey PRIMARY KEY (tenant_id, meter_id, window_start, group_key, revision),
  CONSTRAINT usage_line_revision_positive CHECK (revision >= 1),
  CONSTRAINT usage_line_key_fit CHECK (line_key ~ '^[0-9a-f]{64}$')
);
-- By meter, because lines of meters without a hand-over stay in the index for ever.
CREATE INDEX usage_line_waiting_idx ON usage_line (meter_id, closed_at) WHERE handed_over_at IS NULL AND batch_id IS NULL;
CREATE INDEX usage_line_batch_idx ON usage_line (batch_id) WHERE handed_over_at IS NULL;
CREATE UNIQUE INDEX usage_line_key_idx ON usage_line (line_key) WHERE line_key IS NOT NULL;
COMMENT ON TABLE usage_line IS 'What a closed window came to, and each later change of it as a signed difference: the lines that are handed over, never changed once written.';
COMMENT ON COLUMN usage_line.tenant_id IS 'The tenant.';
COMMENT ON COLUMN usage_line.meter_id IS 'The meter.';
COMMENT ON COLUMN usage_line.window_start IS 'When the window begins (UTC).';
COMMENT ON COLUMN usage_line.group_key IS 'The values that the meter groups by, as a JSON object of texts.';
COMMENT ON COLUMN usage_line.revision IS '1 for the window as it closed, then one more for each change after that.';
COMMENT ON COLUMN usage_line.value IS 'The difference to the revision before; of the first, the whole.';
COMMENT ON COLUMN usage_line.messages IS 'The difference in messages.';
COMMENT ON COLUMN usage_line.total_value IS 'The sum of all revisions up to this one.';
COMMENT ON COLUMN usage_line.total_messages IS 'The messages of all revisions up to this one.';
COMMENT ON COLUMN usage_line.closed_at IS 'When the line was written.';
COMMENT ON COLUMN usage_line.batch_id IS 'The batch that it is sent with; NULL: in none yet, or not to be handed over.';
COMMENT ON COLUMN usage_line.handed_over_at IS 'When the sink had accepted it; NULL: not yet.';
COMMENT ON COLUMN usage_line.trouble IS 'Why the sink did not take it, by the status it gave for this line; NULL: nothing.';
COMMENT ON COLUMN usage_line.line_key IS 'The key by which the sink knows the line, made by chance when the line is written. NULL: a line of an older release, whose key is made of tenant, meter, window, group and revision.';

-- The place of the last hand-over is recorded, so that a restored database does not continue by itself.
CREATE TABLE usage_place (
  is_current boolean NOT NULL DEFAULT true CONSTRAINT usage_place_pkey PRIMARY KEY,
  place      text NOT NULL,
  reason     text NOT NULL,
  noted_at   timestamptz NOT NULL DEFAULT now(),
  first_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT usage_place_single CHECK (is_current),
  CONSTRAINT usage_place_reason_known CHECK (reason IN ('first', 'reconciled', 'nothing_lost'))
);
COMMENT ON TABLE usage_place IS 'The database from which lines are handed over, in one row. In another place (restored, copied, failed over) processor dispatch hands nothing over before processor usage reconcile.';
COMMENT ON COLUMN usage_place.is_current IS 'True: there is one row.';
COMMENT ON COLUMN usage_place.place IS 'What usage_place_now() gave when it was noted.';
COMMENT ON COLUMN usage_place.reason IS 'first: by the first dispatch. reconciled: after a comparison with the sink. nothing_lost: a person said so.';
COMMENT ON COLUMN usage_place.noted_at IS 'When it was noted.';
COMMENT ON COLUMN usage_place.first_at IS 'When lines were handed over for the first time: a tenant or meter that was added before has no earlier namesake at the sink. -infinity: nobody knows.';

CREATE FUNCTION usage_place_now() RETURNS text LANGUAGE sql STABLE
  -- A point-in-time recovery and a promotion start a new timeline, and a restored dump has other table OIDs. Every role
  -- may call these functions.
  RETURN CASE WHEN NOT pg_is_in_recovery() THEN format('server %s, timeline %s, database %s, table %s',
    (SELECT system_identifier FROM pg_control_system()),
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    'usage_line'::regclass::oid) END;
COMMENT ON FUNCTION usage_place_now() IS 'Which server, timeline, database and table these are: another one after a restore, a copy or a failover; NULL on a standby. Not told apart: a copied disk, and rows that are loaded into the same tables.';

CREATE FUNCTION has_pulse_lines(one meter) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (one).aggregation = 'sum' AND (one).value_pointer = '/used_amount' AND cardinality((one).group_names) = 2
    AND (one).group_names @> '{product_sku,use_unity}';
COMMENT ON FUNCTION has_pulse_lines(meter) IS 'Whether lines of a meter have the shape of the pulse, which does not name the meter.';
CREATE FUNCTION pulse_lines_stay_clear() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  other text;
BEGIN
  -- The sink can't tell two such meters apart, so no message may be counted by both.
  SELECT rival.meter INTO other
  FROM meter AS this
  JOIN meter AS rival ON rival.meter_id <> this.meter_id AND has_pulse_lines(rival)
    AND (this.tenant_id IS NULL OR rival.tenant_id IS NULL OR rival.tenant_id = this.tenant_id)
    AND (rival.is_handed_over OR EXISTS (
      SELECT FROM usage_line
      WHERE usage_line.meter_id = rival.meter_id AND (batch_id IS NOT NULL OR handed_over_at IS NOT NULL)))
  WHERE this.meter_id = NEW.meter_id AND this.is_handed_over AND has_pulse_lines(this)
    AND (
      -- Both are active at the same time. A meter retired by this transaction counts nothing from now on.
      (this.active_from < CASE rival.status WHEN 'active' THEN 'infinity' ELSE coalesce(rival.retired_at, '-infinity') END
        AND rival.active_from < CASE this.status WHEN 'active' THEN 'infinity' ELSE coalesce(this.retired_at, '-infinity') END)
      -- Or a rebuild has made one count messages from the time of the other.
      OR (this.active_from > rival.active_from
        AND EXISTS (SELECT FROM usage_rebuild WHERE usage_rebuild.meter_id = this.meter_id))
      OR (rival.active_from > this.active_from
        AND EXISTS (SELECT FROM usage_rebuild WHERE usage_rebuild.meter_id = rival.meter_id)))
  ORDER BY rival.meter_id
  LIMIT 1;
  IF other IS NOT NULL THEN
    RAISE EXCEPTION 'the lines of this meter would look like those of meter %, and count the same messages again', other
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'meter_pulse_lines_clear',
        HINT = 'lines of a sum of /used_amount by product_sku and use_unity do not name their meter: retire the other one first, do not hand this one over, or name its groups otherwise; a rebuild is for the one that was active first';
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION pulse_lines_stay_clear() IS 'Refuses two handed-over meters that count the same messages of a tenant in lines that look alike.';
CREATE CONSTRAINT TRIGGER meter_pulse_lines_clear AFTER INSERT OR UPDATE OF is_handed_over ON meter
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.is_handed_over) EXECUTE FUNCTION pulse_lines_stay_clear();
CREATE CONSTRAINT TRIGGER usage_rebuild_pulse_lines_clear AFTER INSERT OR UPDATE ON usage_rebuild
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pulse_lines_stay_clear();

-- security_invoker, so that row-level security applies to a tenant's reader.
CREATE VIEW usage WITH (security_invoker) AS
  SELECT
    summed.tenant_id, summed.meter, summed.event_type,
    CASE WHEN summed.window_size <> 'none' THEN summed.window_start END AS window_start,
    summed.window_start + summed.window_length AS window_end,
    summed.group_key::jsonb AS group_by,
    summed.value, summed.messages,
    coalesce(lines.revision, 0) AS revision,
    CASE
      WHEN summed.window_length IS NULL OR summed.window_start + summed.window_length > now() THEN 'open'
      WHEN NOT summed.is_closed THEN 'closing'
      WHEN lines.waiting OR NOT summed.is_handed_over THEN 'closed'
      ELSE 'handed_over'
    END AS state,
    coalesce(lines.handed_over, 0) AS handed_over,
    summed.first_at, summed.last_at, summed.meter_id
  FROM (
    -- Joined before the sum, so that a query for one meter reads no totals of others.
    SELECT
      total.tenant_id, meter.meter_id, meter.meter, meter.event_type, meter.window_size, meter.window_length,
      meter.is_handed_over, total.window_start, total.group_key,
      sum(total.value) AS value, sum(total.messages)::bigint AS messages,
      min(total.first_at) AS first_at, max(total.last_at) AS last_at, bool_and(total.is_closed) AS is_closed
    FROM total JOIN meter USING (meter_id)
    GROUP BY total.tenant_id, meter.meter_id, total.window_start, total.group_key
  ) AS summed
  LEFT JOIN LATERAL (
    SELECT
      max(revision) AS revision, bool_or(handed_over_at IS NULL) AS waiting,
      sum(usage_line.value) FILTER (WHERE handed_over_at IS NOT NULL) AS handed_over
    FROM usage_line
    WHERE usage_line.tenant_id = summed.tenant_id AND usage_line.meter_id = summed.meter_id
      AND usage_line.window_start = summed.window_start AND usage_line.group_key = summed.group_key
  ) AS lines ON true;
COMMENT ON VIEW usage IS 'The totals as people ask for them: slots added up, meters by name, and how far each window is.';
COMMENT ON COLUMN usage.tenant_id IS 'The tenant of the messages.';
COMMENT ON COLUMN usage.meter IS 'The name of the meter.';
COMMENT ON COLUMN usage.event_type IS 'The event type that it counts.';
COMMENT ON COLUMN usage.window_start IS 'When the window begins (UTC); NULL for a meter without windows.';
COMMENT ON COLUMN usage.window_end IS 'When the window ends; NULL for a meter without windows.';
COMMENT ON COLUMN usage.group_by IS 'The values that the meter groups by, by name.';
COMMENT ON COLUMN usage.value IS 'The sum, to the last digit, or the count.';
COMMENT ON COLUMN usage.messages IS 'How many messages it is made of.';
COMMENT ON COLUMN usage.revision IS 'How many lines have been written of it; 0: none yet.';
COMMENT ON COLUMN usage.state IS 'open: under way. closing: over, and waiting for stragglers, or changed since it was closed. closed: its lines are written. handed_over: the sink has accepted them all.';
COMMENT ON COLUMN usage.handed_over IS 'The sum of the lines that the sink has accepted.';
COMMENT ON COLUMN usage.first_at IS 'The earliest time of an event in it.';
COMMENT ON COLUMN usage.last_at IS 'The latest time of an event in it.';
COMMENT ON COLUMN usage.meter_id IS 'The meter, as the tables name it.';
