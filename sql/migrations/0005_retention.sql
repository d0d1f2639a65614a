-- Retention: deleted rows are counted, so that the audit still adds up. Rows are deleted only by functions that check
-- their age and count them.

CREATE TABLE removal (
  tenant_id  text COLLATE "C" NOT NULL,
  outcome    text COLLATE "C" NOT NULL,
  day        date NOT NULL,
  row_count  bigint NOT NULL,
  removed_at timestamptz NOT NULL,
  CONSTRAINT removal_pkey PRIMARY KEY (tenant_id, outcome, day),
  -- Rejections discarded by a rule are counted separately, and explain missing deliveries of their own tenant only, so
  -- that noise does not hide a loss.
  CONSTRAINT removal_outcome_known CHECK (outcome IN (
    'message', 'duplicate', 'rejection_discarded', 'rejection_ruled', 'rejection_replayed')),
  CONSTRAINT removal_row_count_positive CHECK (row_count >= 1)
);
-- The last day with deleted messages decides which rejections require --force to be replayed.
CREATE INDEX removal_day_idx ON removal (outcome, day);
COMMENT ON TABLE removal IS 'How many rows processor retention apply has removed, by tenant, outcome and day; written in the transaction that removes them. processor audit adds them to the rows that are there.';
COMMENT ON COLUMN removal.tenant_id IS 'The tenant of the rows; empty: they named no tenant that is registered, as rejections may.';
COMMENT ON COLUMN removal.outcome IS 'What the rows were: message, duplicate, rejection_discarded, rejection_ruled (discarded by a rule; too_large is counted as rejection_discarded, since nobody read whose it was) or rejection_replayed. The last of these had handed its place on to a message or a duplicate.';
COMMENT ON COLUMN removal.day IS 'The day (UTC) on which the rows were stored (message), received (duplicate) or closed (rejection).';
COMMENT ON COLUMN removal.row_count IS 'How many rows were removed.';
COMMENT ON COLUMN removal.removed_at IS 'When the last of them was removed.';

CREATE TABLE retention_floor (
  days     int NOT NULL,
  only_row boolean NOT NULL DEFAULT true CONSTRAINT retention_floor_pkey PRIMARY KEY,
  CONSTRAINT retention_floor_one_row CHECK (only_row),
  CONSTRAINT retention_floor_positive CHECK (days >= 1)
);
COMMENT ON TABLE retention_floor IS 'One row: how old a row of the books is at least when processor_retention removes it, whatever ages it is asked for. The owner may change it.';
COMMENT ON COLUMN retention_floor.days IS 'No message, duplicate or closed rejection that is younger goes, and KEY_RETENTION_DAYS can''t be less. What a rule discarded goes after a day.';
COMMENT ON COLUMN retention_floor.only_row IS 'Always true; keeps the table at one row.';
INSERT INTO retention_floor (days) VALUES (28);

-- Rejections that require --force to be replayed. A rejection with a known key protects its message from deletion for
-- the lifetime of keys, counted from its first rejection by our own clock. A message deleted after that, and stored at
-- most one key lifetime before the rejection, may have been its event. A rejection without a known key protects no
-- message: any message deleted since its arrival may have been its event. The sender controls sent_at, which can make a
-- rejection older but never younger.
CREATE FUNCTION rejection_is_aged(of_rejection rejection, key_days int) RETURNS boolean LANGUAGE sql STABLE
  RETURN (
    SELECT EXISTS (
      SELECT FROM removal
      WHERE outcome = 'message' AND CASE
        WHEN key_known THEN removed_at >= first_at + key_days * interval '24 hours'
          AND (day + 1)::timestamp AT TIME ZONE 'UTC' > first_at - key_days * interval '24 hours'
        ELSE removed_at >= least(first_at, (of_rejection).sent_at) END)
    FROM (
      SELECT
        coalesce((of_rejection).first_rejected_at, (of_rejection).rejected_at) AS first_at,
        (of_rejection).tenant_id IS NOT NULL AND (of_rejection).message_id IS NOT NULL
          AND (of_rejection).reason NOT IN ('too_large', 'not_utf8', 'not_json', 'envelope_invalid')
          AND coalesce((of_rejection).detail #>> '{verdict_today,reason}', '')
            NOT IN ('too_large', 'not_utf8', 'not_json', 'envelope_invalid') AS key_known
    ) AS known);
COMMENT ON FUNCTION rejection_is_aged(rejection, int) IS 'Whether the event of a rejection may have been stored another way and removed by retention since, where keys live for so many days: to replay it might count it twice.';

-- Two statements, as for the registry's version: recent rows are read when no save is running.
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
      -- A body that is too large was not read, so its tenant is unknown, and it may explain a missing event of any tenant.
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
