-- The hand-over of lines: a batch is committed first, sent while it is locked, and marked once the sink has accepted it.
-- After a crash in between, the same lines are sent again under the same keys. Lines are looked up by their whole key
-- only, so that a planner without statistics does not choose a partial index.

-- outlast_request: Let a transaction wait for the sink for so long, and read times in UTC.
SELECT
  set_config('idle_in_transaction_session_timeout', %(timeout_ms)s, false),
  set_config('TimeZone', 'UTC', false)

-- places: Where lines were handed over last, NULL before the first time, and where this is.
SELECT (SELECT place FROM usage_place), usage_place_now()

-- note_first_place: Note that lines are handed over from here; if another noted it first, nothing.
INSERT INTO usage_place (place, reason)
VALUES (usage_place_now(), 'first')
ON CONFLICT ON CONSTRAINT usage_place_pkey DO NOTHING

-- wait_for_turn: Be the one who makes batches, until the commit.
SELECT take_lock('batch_lock', true)

-- choose_lines: Lock the oldest lines that are in no batch yet, of the meters that are handed over; of each meter as many as fit a batch, which is no loss, since others who make batches wait for this one anyway.
SELECT
  waiting.tenant_id, waiting.meter_id, waiting.window_start, waiting.group_key, waiting.revision,
  meter.meter, waiting.line_key
FROM meter
CROSS JOIN LATERAL (
  SELECT tenant_id, meter_id, window_start, group_key, revision, closed_at, line_key
  FROM usage_line
  WHERE usage_line.meter_id = meter.meter_id AND handed_over_at IS NULL AND batch_id IS NULL
  ORDER BY closed_at, tenant_id, window_start, group_key, revision
  LIMIT %(limit)s
  FOR UPDATE SKIP LOCKED
) AS waiting
WHERE meter.is_handed_over
ORDER BY
  waiting.closed_at, waiting.tenant_id, waiting.meter_id, waiting.window_start, waiting.group_key, waiting.revision
LIMIT %(limit)s

-- make_batch: Write a batch down; if somebody took the marks off lines, to have them sent again, it is there already.
INSERT INTO usage_batch (batch_key, line_count, attempt_count, next_attempt_at, trouble)
VALUES (
  %(batch_key)s, %(line_count)s, %(attempt_count)s, clock_timestamp() + %(wait_s)s * interval '1 second', %(trouble)s)
ON CONFLICT ON CONSTRAINT usage_batch_key DO UPDATE
SET attempt_count = excluded.attempt_count, next_attempt_at = excluded.next_attempt_at, handed_over_at = NULL,
  trouble = excluded.trouble
RETURNING batch_id

-- $is_named: Whether a line is one of those whose keys are given.
usage_line.tenant_id = named.tenant_id AND usage_line.meter_id = named.meter_id
  AND usage_line.window_start = named.window_start AND usage_line.group_key = named.group_key
  AND usage_line.revision = named.revision

-- $of_named: Those lines.
FROM unnest(
  %(tenant_id)s::text[], %(meter_id)s::int[], %(window_start)s::timestamptz[], %(group_key)s::text[],
  %(revision)s::int[]
) AS named (tenant_id, meter_id, window_start, group_key, revision)
WHERE $is_named

-- put_in_batch: Say of lines which batch they are sent with.
UPDATE usage_line
SET batch_id = %(batch_id)s
$of_named

-- find_batch: Lock the batch that has waited longest, of those whose time has come; one that another sends is passed over.
SELECT batch_id
FROM usage_batch
WHERE handed_over_at IS NULL AND (%(any_time)s OR next_attempt_at <= now()) AND batch_id <> ALL (%(but)s)
ORDER BY next_attempt_at, batch_id
LIMIT 1
FOR UPDATE SKIP LOCKED

-- find_batches: Lock every batch that waits; those that others send are passed over.
SELECT batch_id
FROM usage_batch
WHERE handed_over_at IS NULL
ORDER BY batch_id
FOR UPDATE SKIP LOCKED

-- claim_batch: Lock batches that wait; those that others send are passed over.
SELECT batch_id, batch_key, line_count, attempt_count
FROM usage_batch
WHERE batch_id = ANY (%(batch_ids)s) AND handed_over_at IS NULL
ORDER BY batch_id
FOR UPDATE SKIP LOCKED

-- lines_of_batch: The lines of a batch that are not handed over, ready to be written out; numbers as PostgreSQL writes them, which is without an exponent.
SELECT
  usage_line.tenant_id, meter_id, usage_line.window_start, group_key, revision,
  meter.meter, meter.group_names, meter.value_pointer, usage_line.value::text, usage_line.messages,
  to_char(usage_line.window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  to_char((usage_line.window_start + meter.window_length) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  line_key
FROM usage_line JOIN meter USING (meter_id)
WHERE batch_id = %(batch_id)s AND handed_over_at IS NULL
ORDER BY usage_line.tenant_id, meter_id, usage_line.window_start, group_key, revision

-- mark_lines: These lines were accepted.
UPDATE usage_line
SET handed_over_at = clock_timestamp(), trouble = NULL
$of_named

-- note_lines: These lines were not, each for its reason.
UPDATE usage_line
SET trouble = named.trouble
FROM unnest(
  %(tenant_id)s::text[], %(meter_id)s::int[], %(window_start)s::timestamptz[], %(group_key)s::text[],
  %(revision)s::int[], %(trouble)s::text[]
) AS named (tenant_id, meter_id, window_start, group_key, revision, trouble)
WHERE $is_named

-- finish_batch: This batch is not sent again: it was accepted, or its lines are in others now.
UPDATE usage_batch
SET handed_over_at = clock_timestamp(), attempt_count = attempt_count + 1, trouble = %(trouble)s
WHERE batch_id = %(batch_id)s

-- postpone_batch: This batch is sent again as it is, after a while.
UPDATE usage_batch
SET attempt_count = attempt_count + 1, trouble = %(trouble)s,
  next_attempt_at = clock_timestamp() + %(wait_s)s * interval '1 second'
WHERE batch_id = %(batch_id)s

-- waiting: How many lines wait to be handed over, how many of them the sink has refused, and for how many seconds the oldest has waited.
SELECT
  count(*), count(*) FILTER (WHERE trouble IS NOT NULL),
  coalesce(extract(epoch FROM now() - min(closed_at)), 0)::float8
FROM (
  SELECT closed_at, trouble
  FROM usage_line
  WHERE batch_id = ANY (ARRAY(SELECT batch_id FROM usage_batch WHERE handed_over_at IS NULL))
    AND handed_over_at IS NULL
  UNION ALL
  SELECT closed_at, trouble
  FROM usage_line
  WHERE meter_id = ANY (ARRAY(SELECT meter_id FROM meter WHERE is_handed_over))
    AND handed_over_at IS NULL AND batch_id IS NULL
) AS waiting
