-- Queries of `processor retention`. A table is scanned once, in ranges of blocks. Each statement deletes and counts rows
-- in a transaction of its own.

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

-- cutoffs: The moments before which rows may go, NULL for "never", and since when a key counts as seen lately; a day more than the keys' age, so that a replay that is just young enough finds its message. Beside them the days that keys live at least.
SELECT
  now() - %(message_days)s::int * interval '24 hours' AS message_before,
  now() - %(duplicate_days)s::int * interval '24 hours' AS duplicate_before,
  now() - %(rejection_days)s::int * interval '24 hours' AS rejection_before,
  CASE WHEN EXISTS (SELECT FROM rejection_rule) THEN now() - %(ruled_days)s::int * interval '24 hours' END AS ruled_before,
  now() - (%(key_days)s::int + 1) * interval '24 hours' AS seen_since,
  (SELECT days FROM retention_floor) AS floor_days

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

-- $is_seen_lately: Whether a message's key was seen lately by a duplicate, or by an open rejection that may be replayed.
((
      SELECT 1 FROM duplicate
      WHERE duplicate.tenant_id = message.tenant_id AND duplicate.message_id = message.message_id
        AND duplicate.producer = message.producer AND duplicate.received_at >= %(seen_since)s LIMIT 1) IS NOT NULL
    OR (
      SELECT 1 FROM rejection
      WHERE rejection.tenant_id = message.tenant_id AND rejection.message_id = message.message_id
        AND coalesce(rejection.producer, '') = message.producer
        AND rejection.status = 'open'
        AND coalesce(rejection.first_rejected_at, rejection.rejected_at) >= %(seen_since)s LIMIT 1) IS NOT NULL)

-- plan_messages: Old messages by tenant; those seen again lately are kept.
SELECT tenant_id, 'message' AS outcome, count(*) FILTER (WHERE NOT seen_lately) AS row_count,
  count(*) FILTER (WHERE seen_lately) AS kept_count,
  min(stored_at) FILTER (WHERE NOT seen_lately) AS oldest_at,
  max(stored_at) FILTER (WHERE NOT seen_lately) AS newest_at
FROM (
  SELECT tenant_id, stored_at,
    $is_seen_lately AS seen_lately
  FROM message
  WHERE stored_at < %(before)s
) AS old
GROUP BY tenant_id
ORDER BY tenant_id

-- blocks: How many blocks a table has.
SELECT pg_relation_size(%(relation)s::regclass) / current_setting('block_size')::int

-- remove_duplicates: Remove and count some old duplicates of one window of blocks.
SELECT * FROM remove_duplicates(%(after)s::tid, %(until)s::tid, %(before)s, %(step_size)s)

-- remove_rejections: Remove and count some old closed rejections of one window of blocks; by their rule too, where one discarded them.
SELECT * FROM remove_rejections(%(after)s::tid, %(until)s::tid, %(before)s::timestamptz, %(ruled_before)s::timestamptz, %(step_size)s)

-- choose_messages: Some old messages of one window of blocks that may go, while saves go on; gives their places, and the last of them.
SELECT coalesce(array_agg(ctid), '{}'), max(ctid)::text
FROM (
  SELECT ctid
  FROM message
  WHERE ctid > %(after)s::tid AND ctid < %(until)s::tid AND stored_at < %(before)s
    AND NOT $is_seen_lately
  LIMIT %(step_size)s
) AS old

-- remove_messages: Remove and count those of the chosen messages that may still go, while no save is under way.
SELECT remove_messages(%(places)s::tid[], %(before)s, %(seen_since)s)
