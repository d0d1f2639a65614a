-- What is billed and stored stays as it is, whoever has a role's password: amounts of lines are written once, and rows
-- of the books go by functions that look at their age and count them.

CREATE TABLE retention_floor (
  days     int NOT NULL,
  only_row boolean NOT NULL DEFAULT true CONSTRAINT retention_floor_pkey PRIMARY KEY,
  CONSTRAINT retention_floor_one_row CHECK (only_row),
  CONSTRAINT retention_floor_positive CHECK (days >= 1)
);
INSERT INTO retention_floor (days) VALUES (28);
COMMENT ON TABLE retention_floor IS 'One row: how old a row of the books is at least when processor_retention removes it, whatever ages it is asked for. The owner may change it.';
COMMENT ON COLUMN retention_floor.days IS 'No message, duplicate or closed rejection that is younger goes, and KEY_RETENTION_DAYS can''t be less. What a rule discarded goes after a day.';
COMMENT ON COLUMN retention_floor.only_row IS 'Always true; keeps the table at one row.';

-- Two statements, as with the registry's version: what was seen lately is asked once no save is under way.
CREATE FUNCTION remove_messages(places tid[], stored_before timestamptz, seen_since timestamptz) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  floor_days int := (SELECT days FROM retention_floor);
  removed bigint;
BEGIN
  IF (stored_before <= now() - floor_days * interval '24 hours'
    AND seen_since <= now() - (floor_days + 1) * interval '24 hours') IS NOT true THEN
    RAISE EXCEPTION 'a message that is younger than % days is not removed', floor_days
      USING ERRCODE = 'insufficient_privilege', HINT = 'as the owner: UPDATE retention_floor';
  END IF;
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  WITH gone AS (
    DELETE FROM message
    WHERE ctid = ANY (places) AND stored_at < stored_before
      AND (
        SELECT 1 FROM duplicate
        WHERE duplicate.tenant_id = message.tenant_id AND duplicate.message_id = message.message_id
          AND duplicate.producer = message.producer AND duplicate.received_at >= remove_messages.seen_since LIMIT 1) IS NULL
      AND (
        SELECT 1 FROM rejection
        WHERE rejection.tenant_id = message.tenant_id AND rejection.message_id = message.message_id
          AND coalesce(rejection.producer, '') = message.producer
          AND rejection.status = 'open'
          AND coalesce(rejection.first_rejected_at, rejection.rejected_at) >= remove_messages.seen_since LIMIT 1) IS NULL
    RETURNING tenant_id, message_id, producer, event_type, payload, coalesce(occurred_at, sent_at) AS counted_at,
      stored_at, (stored_at AT TIME ZONE 'UTC')::date AS day
  ),
  counted AS (
    INSERT INTO removal AS known (tenant_id, outcome, day, row_count, removed_at)
    SELECT tenant_id, 'message', day, count(*), now()
    FROM gone
    GROUP BY tenant_id, day
    ORDER BY tenant_id, day
    ON CONFLICT ON CONSTRAINT removal_pkey DO UPDATE
    SET row_count = known.row_count + excluded.row_count, removed_at = excluded.removed_at
  ),
  noted AS (
    INSERT INTO usage_removal AS known (tenant_id, meter_id, window_start, group_key, value, messages, removed_at)
    SELECT tenant_id, metered.meter_id, window_start, group_key, sum(metered.value), count(*), now()
    FROM gone
    CROSS JOIN LATERAL metered(tenant_id, message_id, producer, event_type, payload, counted_at, stored_at)
    WHERE miss IS NULL
    GROUP BY tenant_id, metered.meter_id, window_start, group_key
    ORDER BY tenant_id, metered.meter_id, window_start, group_key
    ON CONFLICT ON CONSTRAINT usage_removal_pkey DO UPDATE
    SET value = known.value + excluded.value, messages = known.messages + excluded.messages,
      removed_at = excluded.removed_at
  )
  SELECT count(*) INTO removed FROM gone;
  RETURN removed;
END $$;
COMMENT ON FUNCTION remove_messages(tid[], timestamptz, timestamptz) IS 'Removes and counts those of the messages at these places that may go: stored before a moment, their key not seen since another by a duplicate, or by an open rejection that may be replayed. What they had added to totals stays there, and is noted. Gives how many. Waits until no save is under way, and lets none begin until the commit.';

CREATE FUNCTION remove_duplicates(after_place tid, until_place tid, received_before timestamptz, step_size int)
RETURNS TABLE (chosen_count bigint, removed_count bigint, last_place text) LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  floor_days int := (SELECT days FROM retention_floor);
BEGIN
  IF (received_before <= now() - floor_days * interval '24 hours') IS NOT true THEN
    RAISE EXCEPTION 'a duplicate that is younger than % days is not removed', floor_days
      USING ERRCODE = 'insufficient_privilege', HINT = 'as the owner: UPDATE retention_floor';
  END IF;
  RETURN QUERY
  WITH chosen AS (
    SELECT ctid AS place
    FROM duplicate
    WHERE ctid > after_place AND ctid < until_place AND received_at < received_before
    LIMIT step_size
  ),
  gone AS (
    DELETE FROM duplicate WHERE ctid = ANY (ARRAY(SELECT place FROM chosen))
    RETURNING tenant_id, (received_at AT TIME ZONE 'UTC')::date AS day
  ),
  counted AS (
    INSERT INTO removal AS known (tenant_id, outcome, day, row_count, removed_at)
    SELECT coalesce(tenant.tenant_id, '') AS tenant_id, 'duplicate', day, count(*), now()
    FROM gone LEFT JOIN tenant USING (tenant_id)
    GROUP BY 1, day
    ORDER BY 1, day
    ON CONFLICT ON CONSTRAINT removal_pkey DO UPDATE
    SET row_count = known.row_count + excluded.row_count, removed_at = excluded.removed_at
  )
  SELECT count(*) AS chosen, (SELECT count(*) FROM gone) AS removed, max(place)::text AS last FROM chosen;
END $$;
COMMENT ON FUNCTION remove_duplicates(tid, tid, timestamptz, int) IS 'Removes and counts some duplicates between two places that were received before a moment; gives how many were chosen, how many of them went, and the place of the last.';

CREATE FUNCTION remove_rejections(
  after_place tid, until_place tid, closed_before timestamptz, ruled_before timestamptz, step_size int
) RETURNS TABLE (chosen_count bigint, gone_count bigint, last_place text) LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  floor_days int := (SELECT days FROM retention_floor);
BEGIN
  IF (closed_before > now() - floor_days * interval '24 hours') IS true OR (ruled_before > now() - interval '24 hours') IS true
    OR floor_days IS NULL THEN
    RAISE EXCEPTION 'a rejection that was closed less than % days ago, or by a rule within a day, is not removed', floor_days
      USING ERRCODE = 'insufficient_privilege', HINT = 'as the owner: UPDATE retention_floor';
  END IF;
  RETURN QUERY
  WITH chosen AS (
    SELECT ctid AS place
    FROM rejection
    WHERE ctid > after_place AND ctid < until_place AND status <> 'open'
      AND (closed_at < closed_before OR (rule_id IS NOT NULL AND closed_at < ruled_before))
    LIMIT step_size
  ),
  gone AS (
    DELETE FROM rejection WHERE ctid = ANY (ARRAY(SELECT place FROM chosen))
    RETURNING tenant_id, (closed_at AT TIME ZONE 'UTC')::date AS day, rule_id, closed_at,
      -- Whose it was, nobody has read of what is too large: it may explain what any tenant misses.
      CASE WHEN rule_id IS NOT NULL AND status = 'discarded' AND reason <> 'too_large' THEN 'rejection_ruled'
        ELSE 'rejection_' || status END AS outcome
  ),
  by_rule AS (
    UPDATE rejection_rule
    SET removed_count = removed_count + ruled.row_count, removed_last_at = greatest(removed_last_at, ruled.last_at)
    FROM (
      SELECT rule_id, count(*) AS row_count, max(closed_at) AS last_at
      FROM gone WHERE rule_id IS NOT NULL GROUP BY rule_id
    ) AS ruled
    WHERE rejection_rule.rule_id = ruled.rule_id
  ),
  counted AS (
    INSERT INTO removal AS known (tenant_id, outcome, day, row_count, removed_at)
    SELECT coalesce(tenant.tenant_id, '') AS tenant_id, outcome, day, count(*), now()
    FROM gone LEFT JOIN tenant USING (tenant_id)
    GROUP BY 1, outcome, day
    ORDER BY 1, outcome, day
    ON CONFLICT ON CONSTRAINT removal_pkey DO UPDATE
    SET row_count = known.row_count + excluded.row_count, removed_at = excluded.removed_at
  )
  SELECT count(*) AS chosen, (SELECT count(*) FROM gone) AS removed, max(place)::text AS last FROM chosen;
END $$;
COMMENT ON FUNCTION remove_rejections(tid, tid, timestamptz, timestamptz, int) IS 'The same of rejections that were closed before a moment (NULL: never), or discarded by a rule before another (NULL: never). Open ones stay.';

-- A replay says again whose a rejection is, by the bindings of today.
CREATE FUNCTION rejection_unbound() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.bound_tenant_id IS DISTINCT FROM OLD.bound_tenant_id THEN
    NEW.bound_tenant_id := NULL;
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION rejection_unbound() IS 'Shows a rejection to no other tenant than the one that it was proven to be from when it came: another one becomes NULL.';
CREATE TRIGGER rejection_unbound BEFORE UPDATE OF bound_tenant_id ON rejection FOR EACH ROW EXECUTE FUNCTION rejection_unbound();

DO $$
DECLARE
  one record;
  made regprocedure;
BEGIN
  FOREACH made IN ARRAY ARRAY[
    'remove_messages(tid[], timestamptz, timestamptz)', 'remove_duplicates(tid, tid, timestamptz, int)',
    'remove_rejections(tid, tid, timestamptz, timestamptz, int)']::regprocedure[]
  LOOP
    -- A plan for any places would not know how few they are.
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp SET plan_cache_mode = force_custom_plan', made, current_schema());
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', made);
    -- processor_retention, and roles that somebody made instead of it.
    FOR one IN
      SELECT acl.grantee::regrole AS role_name
      FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS acl
      WHERE pg_class.oid = 'message'::regclass AND acl.privilege_type = 'DELETE' AND acl.grantee NOT IN (0, relowner)
    LOOP
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', made, one.role_name);
      EXECUTE format('GRANT SELECT ON retention_floor TO %s', one.role_name);
    END LOOP;
  END LOOP;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_retention') THEN
    REVOKE DELETE ON message, duplicate, rejection FROM processor_retention;
    EXECUTE format('REVOKE DELETE ON %I.registry_lock FROM processor_retention', (
      SELECT nspname FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
      WHERE relname = 'registry_lock' AND nspname IN (current_schema(), locks_schema())));
    REVOKE INSERT, UPDATE ON removal, usage_removal FROM processor_retention;
    REVOKE UPDATE (removed_count, removed_last_at) ON rejection_rule FROM processor_retention;
    REVOKE EXECUTE ON FUNCTION registry_lock_key() FROM processor_retention;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON retention_floor TO processor_reader;
  END IF;

  -- Of what is updated, the columns that have to be, and never what came or what is billed.
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_biller') THEN
    REVOKE UPDATE ON usage_line, usage_batch, usage_rebuild, usage_place, total FROM processor_biller;
    GRANT UPDATE (batch_id, handed_over_at, trouble) ON usage_line TO processor_biller;
    GRANT UPDATE (attempt_count, next_attempt_at, handed_over_at, trouble) ON usage_batch TO processor_biller;
    GRANT UPDATE (rebuilt_at) ON usage_rebuild TO processor_biller;
    GRANT UPDATE (place, reason, noted_at) ON usage_place TO processor_biller;
    GRANT UPDATE (value, messages, first_at, last_at, is_closed) ON total TO processor_biller;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    REVOKE UPDATE ON rejection, total, meter_miss, attempt, unsettled FROM processor_writer;
    GRANT UPDATE (
      reason, detail, tenant_id, event_type, message_id, producer, rejected_at, status, replay_count, closed_at,
      bound_tenant_id, first_rejected_at, rule_id) ON rejection TO processor_writer;
    GRANT UPDATE (value, messages, first_at, last_at, is_closed) ON total TO processor_writer;
    GRANT UPDATE (messages, first_at, last_at, last_message_id) ON meter_miss TO processor_writer;
    GRANT UPDATE (attempts, hangs, noted_at) ON attempt TO processor_writer;
    GRANT UPDATE (delivery_id, noted_at) ON unsettled TO processor_writer;
  END IF;
END $$;

SELECT keep_locks_apart();

-- It takes each table alone for a moment; all who save would wait behind it for a reader who stays.
ALTER FUNCTION put_up_tenant_walls() SET lock_timeout = '2s';
