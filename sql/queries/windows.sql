-- Closing windows: all slots of some totals are locked and written as lines in one transaction. A concurrent save that
-- raises one of them waits and reopens the window, so no amount is missed. Two statements, because the second must see
-- the rows committed while the first waited.

-- take_turn: Be the one who closes, until the commit; an error if another is at it.
SELECT take_lock('window_lock', false)

-- wait_for_turn: Be the one who closes, until the commit.
SELECT take_lock('window_lock', true)

-- $is_due: Whether a slot's window is over, and its grace, and nobody keeps it open.
NOT is_closed AND closes_at <= now()
  AND NOT EXISTS (
    SELECT FROM reopened_window
    WHERE reopened_window.meter_id = total.meter_id AND reopened_window.window_start = total.window_start)

-- $is_open: Whether a slot is open, and of the meters and the tenant that are asked about.
NOT is_closed AND closes_at IS NOT NULL AND meter_id = ANY (%(meter_ids)s)
  AND (%(tenant_id)s::text IS NULL OR total.tenant_id = %(tenant_id)s)

-- count_due: How many slots are to be closed now.
SELECT count(*)
FROM total
WHERE $is_due

-- lock_due: Lock all slots of some totals whose window is over and whose grace is, in the order that saves keep; those that are kept open by a person are left out.
SELECT total.tenant_id, total.meter_id, total.window_start, total.group_key, total.slot
FROM total
JOIN (
  SELECT DISTINCT tenant_id, meter_id, window_start, group_key
  FROM (
    SELECT tenant_id, meter_id, window_start, group_key
    FROM total
    WHERE $is_due
    ORDER BY closes_at
    LIMIT %(limit)s
  ) AS oldest
) AS due USING (tenant_id, meter_id, window_start, group_key)
ORDER BY total.tenant_id, total.meter_id, total.window_start, total.group_key, total.slot
FOR UPDATE OF total

-- lock_ended: The same, of windows that ended by a moment, whatever their grace and whoever keeps them open.
SELECT total.tenant_id, total.meter_id, total.window_start, total.group_key, total.slot
FROM total
JOIN (
  SELECT DISTINCT tenant_id, meter_id, window_start, group_key
  FROM (
    SELECT total.tenant_id, meter_id, window_start, group_key
    FROM total JOIN meter USING (meter_id)
    WHERE $is_open AND window_start + window_length <= %(until)s
    ORDER BY closes_at
    LIMIT %(limit)s
  ) AS oldest
) AS ended USING (tenant_id, meter_id, window_start, group_key)
ORDER BY total.tenant_id, total.meter_id, total.window_start, total.group_key, total.slot
FOR UPDATE OF total

-- close: Close just these, and write what changed since the last line of each; nothing where nothing did. A slot that came into being after they were locked stays open, and is the next closing's.
WITH locked AS (
  SELECT *
  FROM unnest(
    %(tenant_id)s::text[], %(meter_id)s::int[], %(window_start)s::timestamptz[], %(group_key)s::text[],
    %(slot)s::smallint[]
  ) AS locked (tenant_id, meter_id, window_start, group_key, slot)
),
shut AS (
  UPDATE total
  SET is_closed = true
  FROM locked
  WHERE total.tenant_id = locked.tenant_id AND total.meter_id = locked.meter_id
    AND total.window_start = locked.window_start AND total.group_key = locked.group_key
    AND total.slot = locked.slot AND NOT total.is_closed
  RETURNING 1
),
summed AS (
  SELECT
    tenant_id, meter_id, window_start, group_key, sum(value) AS value, sum(messages)::bigint AS messages
  FROM locked
  JOIN total USING (tenant_id, meter_id, window_start, group_key, slot)
  GROUP BY tenant_id, meter_id, window_start, group_key
),
written AS (
  INSERT INTO usage_line (
    tenant_id, meter_id, window_start, group_key, revision, value, messages, total_value, total_messages, line_key)
  SELECT
    summed.tenant_id, summed.meter_id, summed.window_start, summed.group_key, coalesce(last.revision, 0) + 1,
    summed.value - coalesce(last.total_value, 0), summed.messages - coalesce(last.total_messages, 0),
    summed.value, summed.messages,
    -- Random, so that no other line ever gets the key, even if this row is lost.
    replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')
  FROM summed
  LEFT JOIN LATERAL (
    SELECT revision, total_value, total_messages
    FROM usage_line
    WHERE usage_line.tenant_id = summed.tenant_id AND usage_line.meter_id = summed.meter_id
      AND usage_line.window_start = summed.window_start AND usage_line.group_key = summed.group_key
    ORDER BY revision DESC
    LIMIT 1
  ) AS last ON true
  WHERE summed.value <> coalesce(last.total_value, 0) OR summed.messages <> coalesce(last.total_messages, 0)
  ORDER BY summed.tenant_id, summed.meter_id, summed.window_start, summed.group_key
  RETURNING 1
)
SELECT
  (SELECT count(*) FROM summed) AS totals, (SELECT count(*) FROM written) AS lines, (SELECT count(*) FROM shut) AS slots

-- now: The moment by the database's clock, at which this transaction began.
SELECT now()

-- meters_named: The meters of a name, or all, that have windows; shared ones and tenants' own.
SELECT meter_id, meter, window_size
FROM meter
WHERE (%(meter)s::text IS NULL OR meter = %(meter)s)
  AND (%(tenant_id)s::text IS NULL OR tenant_id IS NULL OR tenant_id = %(tenant_id)s)
ORDER BY meter_id

-- release: Take the marks off reopened windows that ended by a moment.
DELETE FROM reopened_window
USING meter
WHERE meter.meter_id = reopened_window.meter_id AND meter.meter_id = ANY (%(meter_ids)s)
  AND reopened_window.window_start + meter.window_length <= %(until)s
RETURNING reopened_window.window_start

-- count_ended: How many slots are of windows that ended by a moment, and open.
SELECT count(*)
FROM total JOIN meter USING (meter_id)
WHERE $is_open AND window_start + window_length <= %(until)s

-- count_not_ended: How many totals are of windows that end after a moment.
SELECT count(DISTINCT (total.tenant_id, meter_id, window_start, group_key))
FROM total JOIN meter USING (meter_id)
WHERE $is_open AND window_start + window_length > %(until)s

-- window_of: The beginning of the window that a moment falls into, for one meter.
SELECT date_bin(window_length, %(moment)s, timestamptz '0001-01-01 00:00:00+00')
FROM meter
WHERE meter_id = %(meter_id)s

-- mark_reopened: Keep a window open beyond its grace; nothing is given back if it is so already.
INSERT INTO reopened_window (meter_id, window_start)
VALUES (%(meter_id)s, %(window_start)s)
ON CONFLICT ON CONSTRAINT reopened_window_pkey DO NOTHING
RETURNING 1

-- reopen: Open the totals of a window again, in the order that saves keep; their lines stay as they are.
WITH locked AS (
  SELECT tenant_id, meter_id, window_start, group_key, slot
  FROM total
  WHERE meter_id = %(meter_id)s AND window_start = %(window_start)s AND is_closed
  ORDER BY tenant_id, meter_id, window_start, group_key, slot
  FOR UPDATE
),
opened AS (
  UPDATE total
  SET is_closed = false
  FROM locked
  WHERE total.tenant_id = locked.tenant_id AND total.meter_id = locked.meter_id
    AND total.window_start = locked.window_start AND total.group_key = locked.group_key
    AND total.slot = locked.slot
  RETURNING total.tenant_id, total.group_key
)
SELECT count(DISTINCT (tenant_id, group_key)) FROM opened
