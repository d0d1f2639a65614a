-- What `processor retention` asks and does. A table is read once, from its first block to its last, in windows
-- of blocks; each deed is one statement that removes rows and counts them, in a transaction of its own.

-- prepare_session: See what others committed, bound every wait, keep the probes of young tables off sequential scans, and count days in UTC.
SELECT
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('statement_timeout', %(statement_timeout_ms)s, false),
  set_config('lock_timeout', %(lock_timeout_ms)s, false),
  set_config('enable_seqscan', 'off', false),
  set_config('jit', 'off', false),
  set_config('TimeZone', 'UTC', false)

-- freeze_snapshot: Let all counts be of one moment, and change nothing.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- cutoffs: The moments before which rows may go, NULL for "never", and since when a key counts as seen lately; a day more than the keys' age, so that a replay that is just young enough finds its message.
SELECT
  now() - %(message_days)s::int * interval '24 hours' AS message_before,
  now() - %(duplicate_days)s::int * interval '24 hours' AS duplicate_before,
  now() - %(rejection_days)s::int * interval '24 hours' AS rejection_before,
  CASE WHEN EXISTS (SELECT FROM rejection_rule) THEN now() - %(ruled_days)s::int * interval '24 hours' END AS ruled_before,
  now() - (%(key_days)s::int + 1) * interval '24 hours' AS seen_since

-- forgotten_before: The moment before which what was sent may have been stored, and removed since, where keys live for so many days; NULL if no message ever was removed. What was sent later held its message at each removal, or was sent too long after the last removed one to have been known as the same.
SELECT least(
  max(removed_at) - %(key_days)s::int * interval '24 hours',
  (max(day) + 1)::timestamp AT TIME ZONE 'UTC' + %(key_days)s::int * interval '24 hours')
FROM removal
WHERE outcome = 'message'

-- plan_duplicates: Old duplicates by tenant.
SELECT tenant_id, 'duplicate' AS outcome, count(*) AS row_count, 0 AS kept_count,
  min(received_at) AS oldest_at, max(received_at) AS newest_at
FROM duplicate
WHERE received_at < %(before)s
GROUP BY tenant_id
ORDER BY tenant_id

-- plan_rejections: Old closed rejections by the tenant that they claim, if it is registered; those that a rule discarded are old sooner.
SELECT coalesce(tenant.tenant_id, '') AS tenant_id, 'rejection_' || rejection.status AS outcome,
  count(*) AS row_count, 0 AS kept_count, min(closed_at) AS oldest_at, max(closed_at) AS newest_at,
  rule_id IS NOT NULL AS by_rule
FROM rejection LEFT JOIN tenant USING (tenant_id)
WHERE rejection.status <> 'open'
  AND (closed_at < %(before)s::timestamptz OR (rule_id IS NOT NULL AND closed_at < %(ruled_before)s::timestamptz))
GROUP BY 1, 2, by_rule
ORDER BY 1, 2, by_rule

-- plan_messages: Old messages by tenant; those seen again lately are kept.
SELECT tenant_id, 'message' AS outcome, count(*) FILTER (WHERE NOT seen_lately) AS row_count,
  count(*) FILTER (WHERE seen_lately) AS kept_count,
  min(stored_at) FILTER (WHERE NOT seen_lately) AS oldest_at,
  max(stored_at) FILTER (WHERE NOT seen_lately) AS newest_at
FROM (
  SELECT tenant_id, stored_at,
    (
      SELECT 1 FROM duplicate
      WHERE duplicate.tenant_id = message.tenant_id AND duplicate.message_id = message.message_id
        AND duplicate.producer = message.producer AND duplicate.received_at >= %(seen_since)s LIMIT 1) IS NOT NULL
    OR (
      SELECT 1 FROM rejection
      WHERE rejection.tenant_id = message.tenant_id AND rejection.message_id = message.message_id
        AND coalesce(rejection.producer, '') = message.producer
        AND rejection.status = 'open'
        AND coalesce(rejection.first_rejected_at, rejection.rejected_at) >= %(seen_since)s LIMIT 1) IS NOT NULL AS seen_lately
  FROM message
  WHERE stored_at < %(before)s
) AS old
GROUP BY tenant_id
ORDER BY tenant_id

-- blocks: How many blocks a table has.
SELECT pg_relation_size(%(relation)s::regclass) / current_setting('block_size')::int

-- remove_duplicates: Remove and count some old duplicates of one window of blocks.
WITH chosen AS (
  SELECT ctid AS place
  FROM duplicate
  WHERE ctid > %(after)s::tid AND ctid < %(until)s::tid AND received_at < %(before)s
  LIMIT %(step_size)s
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
SELECT count(*) AS chosen, (SELECT count(*) FROM gone) AS removed, max(place)::text AS last FROM chosen

-- remove_rejections: Remove and count some old closed rejections of one window of blocks; by their rule too, where one discarded them.
WITH chosen AS (
  SELECT ctid AS place
  FROM rejection
  WHERE ctid > %(after)s::tid AND ctid < %(until)s::tid AND status <> 'open'
    AND (closed_at < %(before)s::timestamptz OR (rule_id IS NOT NULL AND closed_at < %(ruled_before)s::timestamptz))
  LIMIT %(step_size)s
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
SELECT count(*) AS chosen, (SELECT count(*) FROM gone) AS removed, max(place)::text AS last FROM chosen

-- choose_messages: Some old messages of one window of blocks that may go, while saves go on; gives their places, and the last of them.
SELECT coalesce(array_agg(ctid), '{}'), max(ctid)::text
FROM (
  SELECT ctid
  FROM message
  WHERE ctid > %(after)s::tid AND ctid < %(until)s::tid AND stored_at < %(before)s
    AND (
      SELECT 1 FROM duplicate
      WHERE duplicate.tenant_id = message.tenant_id AND duplicate.message_id = message.message_id
        AND duplicate.producer = message.producer AND duplicate.received_at >= %(seen_since)s LIMIT 1) IS NULL
    AND (
      SELECT 1 FROM rejection
      WHERE rejection.tenant_id = message.tenant_id AND rejection.message_id = message.message_id
        AND coalesce(rejection.producer, '') = message.producer
        AND rejection.status = 'open'
        AND coalesce(rejection.first_rejected_at, rejection.rejected_at) >= %(seen_since)s LIMIT 1) IS NULL
  LIMIT %(step_size)s
) AS old

-- hold_saves: Before messages are removed: wait until no save is under way, and let none begin until the commit. Which of them were seen again lately is asked after this, so that no uncommitted save knows better.
LOCK TABLE registry_lock IN EXCLUSIVE MODE

-- remove_messages: Remove and count those of the chosen messages that may still go: none whose key was seen again lately, by a duplicate, or by an open rejection that may be replayed. What they had added to totals stays there, and is noted.
WITH gone AS (
  DELETE FROM message
  WHERE ctid = ANY (%(places)s::tid[]) AND stored_at < %(before)s
    AND (
      SELECT 1 FROM duplicate
      WHERE duplicate.tenant_id = message.tenant_id AND duplicate.message_id = message.message_id
        AND duplicate.producer = message.producer AND duplicate.received_at >= %(seen_since)s LIMIT 1) IS NULL
    AND (
      SELECT 1 FROM rejection
      WHERE rejection.tenant_id = message.tenant_id AND rejection.message_id = message.message_id
        AND coalesce(rejection.producer, '') = message.producer
        AND rejection.status = 'open'
        AND coalesce(rejection.first_rejected_at, rejection.rejected_at) >= %(seen_since)s LIMIT 1) IS NULL
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
SELECT count(*) FROM gone
