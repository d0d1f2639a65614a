-- Queries of `processor usage reconcile`: compare the lines of the sink with ours by key, and add lines that only the
-- sink has as handed over. All in one transaction, during which no window is closed and no line handed over.

-- lock_batches: Keep dispatchers from sending until the end; an error where one is at it.
SELECT batch_id FROM usage_batch WHERE handed_over_at IS NULL ORDER BY batch_id FOR UPDATE NOWAIT

-- lines_without_key: Some lines of older releases, whose keys are made of what they are about.
SELECT usage_line.tenant_id, meter_id, window_start, group_key, revision, meter
FROM usage_line JOIN meter USING (meter_id)
WHERE line_key IS NULL
LIMIT %(limit)s

-- note_keys: Write their keys down.
UPDATE usage_line
SET line_key = named.line_key
FROM unnest(
  %(tenant_id)s::text[], %(meter_id)s::int[], %(window_start)s::timestamptz[], %(group_key)s::text[],
  %(revision)s::int[], %(line_key)s::text[]
) AS named (tenant_id, meter_id, window_start, group_key, revision, line_key)
WHERE usage_line.tenant_id = named.tenant_id AND usage_line.meter_id = named.meter_id
  AND usage_line.window_start = named.window_start AND usage_line.group_key = named.group_key
  AND usage_line.revision = named.revision

-- create_sink_lines: A place for what the sink has.
CREATE TEMPORARY TABLE sink_line (
  line_key text COLLATE "C" PRIMARY KEY, tenant_id text COLLATE "C" NOT NULL, meter text COLLATE "C",
  group_key text COLLATE "C" NOT NULL, window_start timestamptz NOT NULL, revision int NOT NULL,
  value numeric NOT NULL, messages bigint NOT NULL, meter_id int, finding text
) ON COMMIT DROP

-- fill_sink_lines: Take them in, as rows.
COPY sink_line (line_key, tenant_id, meter, group_key, window_start, revision, value, messages) FROM STDIN

-- spell_groups: Write groups as the tables do.
UPDATE sink_line SET group_key = group_key::jsonb::text

-- find_meters: Say which meter each is of; a line of a pulse does not name it, so of several the one that has a line there, or a total, or else the latest.
UPDATE sink_line
SET meter_id = coalesce(
  (SELECT meter_id FROM usage_line WHERE usage_line.line_key = sink_line.line_key),
  (
    SELECT candidate.meter_id
    FROM meter AS candidate
    WHERE (candidate.tenant_id IS NULL OR candidate.tenant_id = sink_line.tenant_id) AND window_size <> 'none'
      AND CASE WHEN sink_line.meter IS NULL THEN has_pulse_lines(candidate) ELSE candidate.meter = sink_line.meter END
      AND EXISTS (SELECT FROM tenant WHERE tenant.tenant_id = sink_line.tenant_id)
    ORDER BY
      EXISTS (
        SELECT FROM usage_line
        WHERE usage_line.tenant_id = sink_line.tenant_id AND usage_line.meter_id = candidate.meter_id
          AND usage_line.window_start = sink_line.window_start AND usage_line.group_key = sink_line.group_key) DESC,
      EXISTS (
        SELECT FROM total
        WHERE total.tenant_id = sink_line.tenant_id AND total.meter_id = candidate.meter_id
          AND total.window_start = sink_line.window_start AND total.group_key = sink_line.group_key) DESC,
      is_handed_over DESC, candidate.meter_id DESC
    LIMIT 1
  ))

-- compare_lines: Say what is to be done about each. A line is written after its window has ended; so one whose window ended before its tenant or meter was added may be of another by that name, which was erased or deleted.
UPDATE sink_line
SET finding = CASE
  WHEN sink_line.meter_id IS NULL THEN 'of_nobody'
  WHEN (known.tenant_id, known.window_start, known.group_key)
    <> (sink_line.tenant_id, sink_line.window_start, sink_line.group_key) THEN 'key_of_another'
  WHEN NOT %(bring_in_earlier)s
    AND (known.line_key IS NULL OR (known.value, known.messages) <> (sink_line.value, sink_line.messages))
    AND EXISTS (
      SELECT FROM unnest(ARRAY[tenant.created_at, meter.created_at]) AS added (added_at)
      WHERE added_at >= sink_line.window_start + meter.window_length
        AND added_at > coalesce((SELECT first_at FROM usage_place), '-infinity'))
    THEN 'of_earlier_life'
  WHEN known.line_key IS NULL THEN 'missing_here'
  WHEN (known.value, known.messages) <> (sink_line.value, sink_line.messages) THEN 'other_amount'
  WHEN known.handed_over_at IS NULL THEN 'not_marked'
  ELSE 'known' END
FROM sink_line AS this
LEFT JOIN usage_line AS known USING (line_key)
LEFT JOIN tenant ON tenant.tenant_id = this.tenant_id
LEFT JOIN meter ON meter.meter_id = this.meter_id
WHERE sink_line.line_key = this.line_key

-- $is_missing_there: Whether a line is marked as handed over, and the sink lacks it.
handed_over_at IS NOT NULL AND NOT EXISTS (SELECT FROM sink_line WHERE sink_line.line_key = usage_line.line_key)

-- findings: How many of each there are, with those that are marked here and that the sink lacks.
SELECT finding, count(*) FROM sink_line GROUP BY finding
UNION ALL
SELECT 'missing_there', count(*)
FROM usage_line
WHERE $is_missing_there

-- examples: The first of those that are not as they should be.
SELECT finding, tenant_id, meter, window_start, group_key::jsonb AS group_by, revision, value, messages, line_key
FROM (
  SELECT finding, sink_line.tenant_id, coalesce(meter.meter, sink_line.meter, '(pulse)') AS meter, window_start, group_key, revision,
    value, messages, line_key
  FROM sink_line LEFT JOIN meter USING (meter_id)
  WHERE finding <> 'known'
  UNION ALL
  SELECT 'missing_there', usage_line.tenant_id, meter.meter, window_start, group_key, revision, value, messages, line_key
  FROM usage_line JOIN meter USING (meter_id)
  WHERE $is_missing_there
) AS odd
ORDER BY finding, tenant_id, meter, window_start, group_key, revision
LIMIT %(kept)s

-- differences: What the windows that change are short of or beyond what the sink has of them, as it would be handed over: what is taken back first, with how many there are.
SELECT
  tenant_id, meter, window_start, group_key::jsonb AS group_by, value,
  count(*) OVER () AS found_count, count(*) FILTER (WHERE value < 0) OVER () AS negative_count
FROM (
  SELECT
    changed.tenant_id, meter.meter, changed.window_start, changed.group_key,
    coalesce((
      SELECT sum(value)
      FROM total
      WHERE total.tenant_id = changed.tenant_id AND total.meter_id = changed.meter_id
        AND total.window_start = changed.window_start AND total.group_key = changed.group_key), 0)
    - coalesce((
      SELECT sum(value)
      FROM usage_line
      WHERE usage_line.tenant_id = changed.tenant_id AND usage_line.meter_id = changed.meter_id
        AND usage_line.window_start = changed.window_start AND usage_line.group_key = changed.group_key), 0)
    - changed.value AS value
  FROM (
    SELECT
      sink_line.tenant_id, sink_line.meter_id, sink_line.window_start, sink_line.group_key,
      sum(sink_line.value - coalesce(known.value, 0)) AS value
    FROM sink_line LEFT JOIN usage_line AS known USING (line_key)
    WHERE finding IN ('missing_here', 'other_amount') OR (finding = 'of_earlier_life' AND NOT %(leave_earlier)s)
    GROUP BY sink_line.tenant_id, sink_line.meter_id, sink_line.window_start, sink_line.group_key
  ) AS changed
  JOIN meter USING (meter_id)
  WHERE meter.is_handed_over
) AS compared
WHERE value <> 0
ORDER BY value < 0 DESC, tenant_id, meter, window_start, group_key
LIMIT %(kept)s

-- take_over: Lines that the sink has, and that wait here or say another amount, become what the sink has.
UPDATE usage_line
SET value = sink_line.value, messages = sink_line.messages, trouble = NULL,
  handed_over_at = coalesce(handed_over_at, clock_timestamp())
FROM sink_line
WHERE usage_line.line_key = sink_line.line_key AND finding IN ('not_marked', 'other_amount')

-- bring_in: Lines that only the sink has become ours, under its keys, and as the next revisions of their windows.
INSERT INTO usage_line (
  tenant_id, meter_id, window_start, group_key, revision, value, messages, total_value, total_messages, line_key,
  handed_over_at)
SELECT
  tenant_id, meter_id, window_start, group_key,
  coalesce((
    SELECT max(revision)
    FROM usage_line
    WHERE usage_line.tenant_id = sink_line.tenant_id AND usage_line.meter_id = sink_line.meter_id
      AND usage_line.window_start = sink_line.window_start AND usage_line.group_key = sink_line.group_key), 0)
    + row_number() OVER (PARTITION BY tenant_id, meter_id, window_start, group_key ORDER BY revision, line_key),
  value, messages, value, messages, line_key, clock_timestamp()
FROM sink_line
WHERE finding = 'missing_here'

-- add_lines_up: Let each line of the windows that changed say what they come to so far.
UPDATE usage_line
SET total_value = summed.total_value, total_messages = summed.total_messages
FROM (
  SELECT tenant_id, meter_id, window_start, group_key, revision,
    sum(value) OVER up_to AS total_value, sum(messages) OVER up_to AS total_messages
  FROM usage_line
  JOIN (
    SELECT DISTINCT tenant_id, meter_id, window_start, group_key
    FROM sink_line
    WHERE finding IN ('missing_here', 'other_amount')
  ) AS changed USING (tenant_id, meter_id, window_start, group_key)
  WINDOW up_to AS (PARTITION BY tenant_id, meter_id, window_start, group_key ORDER BY revision)
) AS summed
WHERE usage_line.tenant_id = summed.tenant_id AND usage_line.meter_id = summed.meter_id
  AND usage_line.window_start = summed.window_start AND usage_line.group_key = summed.group_key
  AND usage_line.revision = summed.revision

-- open_totals: Have the windows that changed closed again, in key order; one that nothing here counted comes to nothing.
INSERT INTO total AS known (
  tenant_id, meter_id, window_start, group_key, slot, value, messages, first_at, last_at, closes_at)
SELECT DISTINCT sink_line.tenant_id, meter_id, window_start, group_key, 0, 0, 0, window_start, window_start,
  window_start + window_length + grace
FROM sink_line JOIN meter USING (meter_id)
WHERE finding IN ('missing_here', 'other_amount')
ORDER BY tenant_id, meter_id, window_start, group_key
ON CONFLICT ON CONSTRAINT total_pkey DO UPDATE SET is_closed = false

-- send_again: Take the marks off lines that the sink lacks.
UPDATE usage_line
SET handed_over_at = NULL, batch_id = NULL
WHERE $is_missing_there

-- note_place: Let lines be handed over from here; gives where that is. What was handed over before the first note, nobody knows.
INSERT INTO usage_place (place, reason, first_at)
VALUES (usage_place_now(), %(reason)s, '-infinity')
ON CONFLICT ON CONSTRAINT usage_place_pkey DO UPDATE
SET place = excluded.place, reason = excluded.reason, noted_at = now()
RETURNING place
