-- Queries of `processor usage`: show totals, compare them with the messages, and correct differences. A filter that is
-- NULL does not apply.

-- $is_within: Whether a row is of the tenant and the windows that are asked about.
(%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(window_from)s::timestamptz IS NULL OR window_start >= %(window_from)s)
  AND (%(window_until)s::timestamptz IS NULL OR window_start < %(window_until)s)

-- $is_chosen: Whether it is of the meters, too.
$is_within AND (%(meter_ids)s::int[] IS NULL OR meter_id = ANY (%(meter_ids)s))

-- $said: What the messages come to that could be in the totals that are asked about.
said AS MATERIALIZED (
  SELECT * FROM metered_totals(
    %(tenant_id)s, %(meter_ids)s, %(event_types)s, %(window_from)s, %(window_until)s, %(stored_from)s, %(stored_until)s)
)

-- freeze_snapshot: Let all answers be of one moment, and change nothing.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- spare_compiler: Keep a long question off a compiler that takes longer than it saves.
SELECT set_config('jit', 'off', true)

-- tenant_known: Whether there is such a tenant.
SELECT EXISTS (SELECT FROM tenant WHERE tenant_id = %(tenant_id)s)

-- chosen_meters: The meters that are asked about, and for how long an event and its storing may lie apart; NULL: for ever.
SELECT
  meter_id, meter.meter, tenant_id, event_type, group_names, status, window_length,
  past_limit + window_length AS stored_later, future_limit AS stored_earlier
FROM meter
WHERE (%(meter)s::text IS NULL OR meter.meter = %(meter)s)
  AND (%(tenant_id)s::text IS NULL OR tenant_id IS NULL OR tenant_id = %(tenant_id)s)
ORDER BY meter.meter, tenant_id NULLS FIRST

-- compare_totals: Compare each total with its messages and what retention removed of them: one row with counts of all, beside each of the first totals that differ.
WITH $said,
expected AS (
  SELECT tenant_id, meter_id, window_start, group_key, sum(value) AS value, sum(messages) AS messages
  FROM (
    SELECT tenant_id, meter_id, window_start, group_key, value, messages FROM said WHERE miss IS NULL
    UNION ALL
    SELECT tenant_id, meter_id, window_start, group_key, value, messages
    FROM usage_removal
    WHERE $is_chosen
  ) AS parts
  GROUP BY tenant_id, meter_id, window_start, group_key
),
found AS (
  SELECT tenant_id, meter_id, window_start, group_key, sum(value) AS value, sum(messages) AS messages
  FROM total
  WHERE $is_chosen
  GROUP BY tenant_id, meter_id, window_start, group_key
),
compared AS MATERIALIZED (
  SELECT
    tenant_id, meter_id, window_start, group_key,
    coalesce(expected.value, 0) AS expected, coalesce(found.value, 0) AS found,
    coalesce(expected.messages, 0)::bigint AS expected_messages, coalesce(found.messages, 0)::bigint AS found_messages
  FROM expected FULL JOIN found USING (tenant_id, meter_id, window_start, group_key)
),
differing AS (
  SELECT * FROM compared WHERE (expected, expected_messages) <> (found, found_messages)
),
counts AS (
  SELECT
    count(*) AS total_count, coalesce(sum(found_messages), 0)::bigint AS message_count,
    (SELECT coalesce(sum(messages), 0)::bigint FROM said WHERE miss IS NOT NULL) AS miss_count,
    (SELECT count(*) FROM differing) AS found_count
  FROM compared
),
listed AS (
  SELECT * FROM differing ORDER BY tenant_id, meter_id, window_start, group_key LIMIT %(kept)s
)
SELECT
  counts.*, listed.tenant_id, coalesce(meter.meter, 'meter_id ' || listed.meter_id) AS meter,
  CASE WHEN meter.window_size IS DISTINCT FROM 'none' THEN listed.window_start END AS window_start,
  listed.group_key::jsonb AS group_by,
  listed.expected, listed.found, listed.expected_messages, listed.found_messages
FROM counts
LEFT JOIN listed ON true
LEFT JOIN meter USING (meter_id)
ORDER BY listed.tenant_id, listed.meter_id, listed.window_start, listed.group_key

-- false_lines: Lines that don't follow from the ones before: a revision left out, or a sum that is none.
SELECT
  line.tenant_id, meter.meter, window_start, group_key::jsonb AS group_by, revision, place AS expected_revision,
  value_so_far AS expected, total_value AS found, messages_so_far::bigint AS expected_messages,
  total_messages AS found_messages, count(*) OVER () AS found_count
FROM (
  SELECT *, row_number() OVER up_to AS place,
    sum(value) OVER up_to AS value_so_far, sum(messages) OVER up_to AS messages_so_far
  FROM usage_line
  WHERE $is_chosen
  WINDOW up_to AS (PARTITION BY usage_line.tenant_id, meter_id, window_start, group_key ORDER BY revision)
) AS line
JOIN meter USING (meter_id)
WHERE (revision, total_value, total_messages) <> (place, value_so_far, messages_so_far)
ORDER BY line.tenant_id, meter.meter, window_start, group_key, revision
LIMIT %(kept)s

-- false_closings: Totals that are closed, and whose last line says something else; and lines without a total.
WITH last_line AS (
  SELECT DISTINCT ON (tenant_id, meter_id, window_start, group_key)
    tenant_id, meter_id, window_start, group_key, revision, total_value, total_messages
  FROM usage_line
  WHERE $is_chosen
  ORDER BY tenant_id, meter_id, window_start, group_key, revision DESC
),
summed AS (
  SELECT
    tenant_id, meter_id, window_start, group_key, sum(value) AS value, sum(messages) AS messages,
    bool_and(is_closed) AS is_closed
  FROM total
  WHERE $is_chosen
  GROUP BY tenant_id, meter_id, window_start, group_key
)
SELECT
  closing.tenant_id, coalesce(meter.meter, 'meter_id ' || closing.meter_id) AS meter, window_start,
  group_key::jsonb AS group_by, revision,
  expected, found, expected_messages, found_messages, count(*) OVER () AS found_count
FROM (
  SELECT
    tenant_id, meter_id, window_start, group_key, coalesce(revision, 0) AS revision,
    coalesce(value, 0) AS expected, coalesce(total_value, 0) AS found,
    coalesce(messages, 0)::bigint AS expected_messages, coalesce(total_messages, 0) AS found_messages
  FROM last_line FULL JOIN summed USING (tenant_id, meter_id, window_start, group_key)
  WHERE coalesce(is_closed, true)
) AS closing
LEFT JOIN meter USING (meter_id)
WHERE (expected, expected_messages) <> (found, found_messages)
ORDER BY closing.tenant_id, 2, window_start, group_key
LIMIT %(kept)s

-- removed_windows: Windows of whose messages retention has removed some, with how many.
SELECT
  removed.tenant_id, meter.meter,
  CASE WHEN meter.window_size <> 'none' THEN window_start END AS window_start,
  sum(removed.messages)::bigint AS messages, max(removed_at) AS removed_at, count(*) OVER () AS found_count
FROM (SELECT * FROM usage_removal WHERE $is_chosen) AS removed JOIN meter USING (meter_id)
GROUP BY removed.tenant_id, meter.meter_id, window_start
ORDER BY removed.tenant_id, meter.meter, window_start
LIMIT %(kept)s

-- prepare_rebuild: See what others committed meanwhile, make commits durable whatever the role's defaults, and keep a long question off a compiler.
SELECT
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('synchronous_commit',
    CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN 'on'
    ELSE current_setting('synchronous_commit') END, false),
  set_config('jit', 'off', false)

-- cover_windows: From the commit on, let the meters count in these windows what was stored before they were active, or before they counted amounts in quotes, too.
INSERT INTO usage_rebuild (meter_id, window_from, window_until, rebuilt_at)
SELECT
  meter_id, coalesce(%(window_from)s, timestamptz '-infinity'), coalesce(%(window_until)s, timestamptz 'infinity'),
  clock_timestamp()
FROM unnest(%(meter_ids)s::int[]) AS chosen (meter_id)
JOIN meter USING (meter_id)
WHERE NOT EXISTS (
  SELECT FROM usage_rebuild AS wider
  WHERE wider.meter_id = chosen.meter_id
    AND wider.window_from <= coalesce(%(window_from)s, timestamptz '-infinity')
    AND wider.window_until >= coalesce(%(window_until)s, timestamptz 'infinity')
    AND wider.rebuilt_at >= meter.text_amounts_from IS NOT false)
ORDER BY meter_id
ON CONFLICT ON CONSTRAINT usage_rebuild_pkey DO UPDATE SET rebuilt_at = excluded.rebuilt_at

-- drop_differences: Forget what an earlier rebuild of this session found.
DROP TABLE IF EXISTS pg_temp.usage_difference

-- create_differences: A place for what is missing from totals, or too much, by a number in key order.
CREATE TEMPORARY TABLE usage_difference (
  position bigint, tenant_id text COLLATE "C", meter_id int, window_start timestamptz, group_key text COLLATE "C",
  value numeric, messages bigint, first_at timestamptz, last_at timestamptz, closes_at timestamptz
)

-- find_differences: Set down what each total lacks to what its messages, and what retention removed of them, come to: all of one snapshot. Gives how many totals differ, and how many messages could not be counted.
WITH $said,
part AS (
  SELECT tenant_id, meter_id, window_start, group_key, value, messages, first_at, last_at FROM said WHERE miss IS NULL
  UNION ALL
  SELECT tenant_id, meter_id, window_start, group_key, value, messages, NULL, NULL
  FROM usage_removal
  WHERE $is_chosen
  UNION ALL
  SELECT tenant_id, meter_id, window_start, group_key, -value, -messages, NULL, NULL
  FROM total
  WHERE $is_chosen
),
filled AS (
  INSERT INTO usage_difference
  SELECT
    row_number() OVER (ORDER BY part.tenant_id, part.meter_id, window_start, group_key),
    part.tenant_id, part.meter_id, window_start, group_key, sum(value), sum(messages),
    coalesce(min(first_at), window_start), coalesce(max(last_at), window_start),
    window_start + min(window_length) + min(grace)
  FROM part JOIN meter USING (meter_id)
  GROUP BY part.tenant_id, part.meter_id, window_start, group_key
  HAVING sum(value) <> 0 OR sum(messages) <> 0
  RETURNING 1
)
SELECT
  (SELECT count(*) FROM filled) AS found_count,
  (SELECT coalesce(sum(messages), 0)::bigint FROM said WHERE miss IS NOT NULL) AS miss_count

-- index_differences: Find the next ones without reading them all.
CREATE INDEX ON usage_difference (position)

-- list_differences: The first of what was found.
SELECT
  usage_difference.tenant_id, meter.meter,
  CASE WHEN meter.window_size <> 'none' THEN window_start END AS window_start, group_key::jsonb AS group_by, value, messages
FROM usage_difference JOIN meter USING (meter_id)
WHERE position <= %(kept)s
ORDER BY position

-- add_differences: Add the next of what was found to the totals, in key order; whatever else raised them meanwhile stays added. A tenant that was erased meanwhile gets none back.
INSERT INTO total AS known (
  tenant_id, meter_id, window_start, group_key, slot, value, messages, first_at, last_at, closes_at)
SELECT tenant_id, meter_id, window_start, group_key, 0, value, messages, first_at, last_at, closes_at
FROM usage_difference
WHERE position > %(after)s AND position <= %(until)s
  AND EXISTS (SELECT FROM tenant WHERE tenant.tenant_id = usage_difference.tenant_id)
ORDER BY position
ON CONFLICT ON CONSTRAINT total_pkey DO UPDATE
SET value = known.value + excluded.value, messages = known.messages + excluded.messages,
  first_at = least(known.first_at, excluded.first_at), last_at = greatest(known.last_at, excluded.last_at),
  is_closed = false

-- totals: The totals that are asked for, in the order of tenant, meter, window and group; all limits are kept before anything is summed.
SELECT tenant_id, meter, window_start, group_by, value, messages, revision, state
FROM usage
WHERE $is_within
  AND (%(meter)s::text IS NULL OR meter = %(meter)s)
  AND (%(group_by)s::jsonb IS NULL OR group_by @> %(group_by)s::jsonb)
ORDER BY tenant_id, meter, window_start, group_by
LIMIT %(limit)s

-- idle_voids: Voids that have cancelled nothing, the latest first, with the reason.
SELECT tenant_id, message_id, producer, void_id, voided_at, why, producers
FROM (
  SELECT
    voided.tenant_id, voided.message_id, voided.producer, void_id, voided_at, others.producers,
    CASE
      WHEN target.event_type = 'void' THEN 'is_a_void'
      WHEN target.event_type IS NULL THEN CASE WHEN others.producers = '{}' THEN 'no_message' ELSE 'other_producer' END
      WHEN NOT EXISTS (
        SELECT FROM meter
        WHERE meter.event_type = target.event_type AND (meter.tenant_id IS NULL OR meter.tenant_id = voided.tenant_id))
        THEN 'not_counted'
    END AS why
  FROM voided
  LEFT JOIN message AS target USING (tenant_id, message_id, producer)
  CROSS JOIN LATERAL (
    SELECT ARRAY(
      SELECT message.producer
      FROM message
      WHERE message.tenant_id = voided.tenant_id AND message.message_id = voided.message_id
        AND message.producer <> voided.producer
      ORDER BY message.producer
      LIMIT 5) AS producers
  ) AS others
  WHERE (%(tenant_id)s::text IS NULL OR voided.tenant_id = %(tenant_id)s)
) AS judged
WHERE why IS NOT NULL
ORDER BY voided_at DESC, tenant_id, message_id, producer
LIMIT %(limit)s
