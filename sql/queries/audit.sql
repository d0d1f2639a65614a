-- Queries of `processor audit`: first checks within the tables, then against a manifest.
-- A query for problems counts them all (found) and returns only the first, so that a million need no memory.

-- outcomes: Rows by outcome.
SELECT
  (SELECT count(*) FROM message) AS message,
  (SELECT count(*) FROM duplicate) AS duplicate,
  (SELECT count(*) FROM rejection WHERE status = 'open') AS rejection_open,
  (SELECT count(*) FROM rejection WHERE status = 'discarded') AS rejection_discarded,
  (SELECT count(*) FROM rejection WHERE status = 'replayed') AS rejection_replayed

-- removed: Rows that retention has removed, by outcome.
SELECT
  coalesce(sum(row_count) FILTER (WHERE outcome = 'message'), 0)::bigint AS message,
  coalesce(sum(row_count) FILTER (WHERE outcome = 'duplicate'), 0)::bigint AS duplicate,
  coalesce(sum(row_count) FILTER (WHERE outcome IN ('rejection_discarded', 'rejection_ruled')), 0)::bigint AS rejection_discarded,
  coalesce(sum(row_count) FILTER (WHERE outcome = 'rejection_replayed'), 0)::bigint AS rejection_replayed
FROM removal

-- in_two_tables: Deliveries that stand in more than one table; a replayed rejection has handed its place on.
SELECT queue, delivery_id, string_agg(place, ', ' ORDER BY place) AS places, count(*) OVER () AS found
FROM (
  SELECT queue, delivery_id, 'duplicate' AS place FROM duplicate
  UNION ALL
  SELECT queue, delivery_id, 'rejection' FROM rejection WHERE status <> 'replayed'
  UNION ALL
  SELECT queue, delivery_id, 'message' FROM message
) AS places
GROUP BY queue, delivery_id
HAVING count(*) > 1
ORDER BY queue, delivery_id
LIMIT %(kept)s

-- duplicates_of_nothing: Duplicates whose message is not there, beyond as many messages as were removed of their tenant, none of them later than the duplicate.
WITH orphan AS (
  SELECT queue, delivery_id, tenant_id, message_id, producer, received_at,
    dense_rank() OVER (PARTITION BY tenant_id ORDER BY message_id, producer) AS place
  FROM duplicate
  WHERE NOT EXISTS (
    SELECT FROM message
    WHERE message.tenant_id = duplicate.tenant_id AND message.message_id = duplicate.message_id
      AND message.producer = duplicate.producer)
),
gone AS (
  SELECT tenant_id, sum(row_count) AS row_count, min(day) AS first_day
  FROM removal WHERE outcome = 'message' GROUP BY tenant_id
)
SELECT queue, delivery_id, tenant_id, message_id, producer, count(*) OVER () AS found
FROM orphan LEFT JOIN gone USING (tenant_id)
WHERE gone.row_count IS NULL OR place > gone.row_count
  -- A day of tolerance, since received_at is the processor's clock and stored_at the database's.
  OR (received_at AT TIME ZONE 'UTC')::date + 1 < gone.first_day
ORDER BY queue, delivery_id
LIMIT %(kept)s

-- replayed_to_nothing: Rejections closed as replayed whose delivery is in no other table, beyond as many rows as were removed of their tenant, none of them later than the closing.
WITH orphan AS (
  SELECT queue, delivery_id, rejection_id, tenant_id, closed_at,
    row_number() OVER (PARTITION BY tenant_id ORDER BY rejection_id) AS place
  FROM rejection
  WHERE status = 'replayed'
    AND NOT EXISTS (
      SELECT FROM message
      WHERE message.queue = rejection.queue AND message.delivery_id = rejection.delivery_id)
    AND NOT EXISTS (
      SELECT FROM duplicate
      WHERE duplicate.queue = rejection.queue AND duplicate.delivery_id = rejection.delivery_id)
),
-- The last row is for all tenants, for rejections whose tenant could not be read.
gone AS (
  SELECT tenant_id, sum(row_count) AS row_count, min(day) AS first_day
  FROM removal WHERE outcome IN ('message', 'duplicate') GROUP BY ROLLUP (tenant_id)
)
SELECT queue, delivery_id, rejection_id, count(*) OVER () AS found
FROM orphan LEFT JOIN gone ON gone.tenant_id IS NOT DISTINCT FROM orphan.tenant_id
WHERE gone.row_count IS NULL OR place > gone.row_count
  OR (closed_at AT TIME ZONE 'UTC')::date + 1 < gone.first_day
ORDER BY rejection_id
LIMIT %(kept)s

-- create_manifest: A place for the manifest's lines, for this transaction only.
CREATE TEMPORARY TABLE manifest_line (
  state text NOT NULL, tenant_id text COLLATE "C", message_id text COLLATE "C", digest text, delivery_id text COLLATE "C"
) ON COMMIT DROP

-- copy_manifest: Bring the lines in.
COPY manifest_line (state, tenant_id, message_id, digest, delivery_id) FROM STDIN

-- index_manifest_deliveries: Find a line by its delivery without reading them all.
CREATE INDEX ON manifest_line (delivery_id) WHERE delivery_id IS NOT NULL

-- index_manifest_ids: Find the lines of a message without reading them all.
CREATE INDEX ON manifest_line (tenant_id, message_id)

-- analyze_manifest: Count the lines, so that the plans of the questions below fit.
ANALYZE manifest_line

-- create_stored: A place for the digests of the stored payloads, for this transaction only.
CREATE TEMPORARY TABLE stored_message (
  tenant_id text COLLATE "C", message_id text COLLATE "C", producer text COLLATE "C",
  queue text COLLATE "C", delivery_id text COLLATE "C", base text COLLATE "C", digest text
) ON COMMIT DROP

-- $base: What manifests know of a delivery: its id, without what tells the hand-overs of one message of RabbitMQ apart.
regexp_replace(delivery_id, '~[0-9a-f]{12}$', '')

-- payloads: The stored messages, to be read in pages; the base is what manifests know of a delivery.
SELECT tenant_id, message_id, producer, queue, delivery_id,
  $base AS base, payload::text
FROM message

-- copy_stored: Bring the messages in with the digests of their payloads.
COPY stored_message (tenant_id, message_id, producer, queue, delivery_id, base, digest) FROM STDIN

-- analyze_stored: Count them, so that the plans of the questions below fit.
ANALYZE stored_message

-- place_deliveries: Where each delivery is that the queue accepted; joins, since a question per delivery is quadratic. RabbitMQ names no sending, so of its messages that are equal as many rows must be there as were accepted: its ids end with what tells their hand-overs apart, and a manifest names what stands before that.
CREATE TEMPORARY TABLE placed_delivery ON COMMIT DROP AS
WITH accepted AS (
  SELECT delivery_id, min(tenant_id) AS tenant_id, min(message_id) AS message_id,
    CASE WHEN delivery_id ~ '(:[0-9a-f]{16}|^[0-9a-f]{64})$' THEN count(*) ELSE 1 END AS sends
  FROM manifest_line WHERE state = 'accepted' GROUP BY delivery_id
),
placed AS (
  SELECT delivery_id,
    count(*) FILTER (WHERE place = 'message') AS messages,
    count(*) FILTER (WHERE place = 'duplicate') AS duplicates,
    count(*) FILTER (WHERE place = 'rejection') AS rejections
  FROM (
    SELECT base AS delivery_id, 'message' AS place FROM stored_message
    UNION ALL
    SELECT $base, 'duplicate' FROM duplicate
    UNION ALL
    SELECT $base, 'rejection' FROM rejection WHERE status <> 'replayed'
  ) AS bases
  GROUP BY delivery_id
)
SELECT delivery_id, tenant_id, message_id,
  send <= messages AS as_message,
  send > messages AND send <= messages + duplicates AS as_duplicate,
  send > messages + duplicates AND send <= messages + duplicates + rejections AS as_rejection
FROM (
  SELECT accepted.*, coalesce(messages, 0) AS messages, coalesce(duplicates, 0) AS duplicates,
    coalesce(rejections, 0) AS rejections
  FROM accepted LEFT JOIN placed USING (delivery_id)
) AS counted
CROSS JOIN LATERAL generate_series(1, sends) AS send

-- accepted: How many deliveries the queue accepted, and where each is: one row.
SELECT
  count(*) AS accepted,
  count(*) FILTER (WHERE as_message) AS message,
  count(*) FILTER (WHERE as_duplicate) AS duplicate,
  count(*) FILTER (WHERE as_rejection) AS rejection,
  count(*) FILTER (WHERE NOT (as_message OR as_duplicate OR as_rejection)) AS missing
FROM placed_delivery

-- unexplained: How many of the missing deliveries are more than retention has removed: tenant by tenant, where '' is every tenant that is not registered, and where a line names no tenant, of what the others leave over. Only what a person discarded, or what was too large to be read, may be counted under another tenant than its line names, or under none: it explains any.
WITH gone AS (
  SELECT tenant_id, outcome = 'rejection_discarded' AS may_be_anybodys, sum(row_count) AS row_count
  FROM removal WHERE outcome <> 'rejection_replayed' GROUP BY 1, 2
),
missing AS (
  SELECT CASE
      WHEN tenant_id IN (SELECT tenant_id FROM tenant UNION SELECT tenant_id FROM gone) THEN tenant_id
      WHEN tenant_id IS NOT NULL THEN ''
    END AS tenant_id, count(*) AS deliveries
  FROM placed_delivery WHERE NOT (as_message OR as_duplicate OR as_rejection) GROUP BY 1
)
SELECT greatest(0,
  coalesce(sum(greatest(0, missing - removed)) FILTER (WHERE tenant_id IS NOT NULL), 0)
  + greatest(0,
    coalesce(sum(missing) FILTER (WHERE tenant_id IS NULL), 0)
    - coalesce(sum(greatest(0, removed - missing)) FILTER (WHERE tenant_id IS NOT NULL), 0))
  - coalesce((SELECT sum(row_count) FROM gone WHERE may_be_anybodys), 0))::bigint AS unexplained
FROM (
  SELECT tenant_id, coalesce(deliveries, 0) AS missing, coalesce(row_count, 0) AS removed
  FROM missing FULL JOIN (SELECT * FROM gone WHERE NOT may_be_anybodys) AS owned USING (tenant_id)
) AS tenants

-- missing: Accepted deliveries that are in no table.
SELECT delivery_id, tenant_id, message_id, count(*) OVER () AS found
FROM placed_delivery
WHERE NOT (as_message OR as_duplicate OR as_rejection)
ORDER BY delivery_id
LIMIT %(kept)s

-- stored_and_rejected: Messages of RabbitMQ that were sent once, and are stored and rejected: each hand-over has an id of its own, so that the tables by themselves can't tell.
SELECT base AS delivery_id, 'message, rejection' AS places, count(*) OVER () AS found
FROM (
  SELECT delivery_id AS base FROM manifest_line WHERE state = 'accepted' GROUP BY delivery_id HAVING count(*) = 1
) AS sent_once
JOIN (SELECT DISTINCT base FROM stored_message WHERE base <> delivery_id) AS stored USING (base)
JOIN (
  SELECT DISTINCT $base AS base FROM rejection WHERE status <> 'replayed'
) AS rejected USING (base)
ORDER BY base
LIMIT %(kept)s

-- find_unnamed: Messages that nobody says to have sent; an event without an id is known by tenant and digest. They are others' where no manifest names the tenant, or its named messages are all of other producers.
CREATE TEMPORARY TABLE unnamed_message ON COMMIT DROP AS
WITH named_id AS (
  SELECT DISTINCT tenant_id, message_id FROM manifest_line WHERE message_id IS NOT NULL
),
named_delivery AS (
  SELECT DISTINCT delivery_id AS base FROM manifest_line WHERE delivery_id IS NOT NULL
),
marked AS (
  SELECT stored_message.*, named_id.message_id IS NOT NULL OR named_delivery.base IS NOT NULL AS named
  FROM stored_message
  LEFT JOIN named_id USING (tenant_id, message_id)
  LEFT JOIN named_delivery USING (base)
),
spoken AS (
  SELECT DISTINCT tenant_id, producer FROM marked WHERE named
),
unknown AS (
  SELECT *, message_id IN (
    queue || '/' || delivery_id,
    -- The rule of wire.derived_id for ids that would be too long.
    left(encode(sha256(convert_to(queue, 'UTF8')), 'hex'), 16) || '/' || delivery_id,
    encode(sha256(convert_to(queue || '/' || delivery_id, 'UTF8')), 'hex'))
    -- RabbitMQ's property message_id replaces an id that the event does not have.
    OR starts_with(base, message_id || ':') AS without_id
  FROM marked
  WHERE NOT named
),
-- Each intended send without an id explains one row whose delivery was not in any answer.
intended AS (
  SELECT tenant_id, digest, count(*) AS sends
  FROM manifest_line
  WHERE state = 'intended' AND message_id IS NULL AND delivery_id IS NULL
  GROUP BY tenant_id, digest
),
numbered AS (
  SELECT *, row_number() OVER (PARTITION BY without_id, tenant_id, digest ORDER BY queue, delivery_id) AS place
  FROM unknown
)
SELECT tenant_id, message_id, producer, queue, delivery_id,
  tenant_id NOT IN (SELECT tenant_id FROM manifest_line WHERE tenant_id IS NOT NULL)
    OR tenant_id IN (SELECT tenant_id FROM spoken) AND (tenant_id, producer) NOT IN (SELECT tenant_id, producer FROM spoken)
    AS others
FROM numbered LEFT JOIN intended USING (tenant_id, digest)
WHERE NOT without_id OR place > coalesce(sends, 0)

-- unexpected: Messages that nobody says to have sent, of tenants and producers that manifests speak of.
SELECT tenant_id, message_id, producer, queue, delivery_id, count(*) OVER () AS found
FROM unnamed_message
WHERE NOT others
ORDER BY tenant_id, message_id, producer
LIMIT %(kept)s

-- of_others: How many messages are of tenants and producers that no manifest speaks of.
SELECT count(*) FILTER (WHERE others) AS messages FROM unnamed_message

-- stored_twice: Messages with more rows than sends: each send has one producer, so it can make but one row.
WITH repeated AS (
  SELECT tenant_id, message_id, count(*) AS row_count
  FROM stored_message
  GROUP BY tenant_id, message_id
  HAVING count(*) > 1
),
sent AS (
  SELECT tenant_id, message_id,
    greatest(count(DISTINCT delivery_id), count(*) FILTER (WHERE delivery_id IS NULL)) AS sends
  FROM manifest_line JOIN repeated USING (tenant_id, message_id)
  GROUP BY tenant_id, message_id
)
SELECT tenant_id, message_id, row_count AS count, sends, count(*) OVER () AS found
FROM repeated JOIN sent USING (tenant_id, message_id)
WHERE row_count > sends
ORDER BY tenant_id, message_id
LIMIT %(kept)s

-- altered: Messages with a payload that neither their delivery's lines name nor, where none does, their id's.
WITH by_delivery AS (
  SELECT delivery_id, array_agg(digest) FILTER (WHERE digest IS NOT NULL) AS digests
  FROM manifest_line WHERE delivery_id IS NOT NULL GROUP BY delivery_id
),
by_id AS (
  SELECT tenant_id, message_id, array_agg(digest) FILTER (WHERE digest IS NOT NULL) AS digests
  FROM manifest_line WHERE message_id IS NOT NULL GROUP BY tenant_id, message_id
)
SELECT tenant_id, message_id, producer, stored_message.delivery_id, count(*) OVER () AS found
FROM stored_message
LEFT JOIN by_delivery ON by_delivery.delivery_id = stored_message.base
LEFT JOIN by_id USING (tenant_id, message_id)
-- Manifest lines without a digest make this NULL, which is not a problem.
WHERE digest <> ALL (CASE WHEN by_delivery.delivery_id IS NULL THEN by_id.digests ELSE by_delivery.digests END)
ORDER BY tenant_id, message_id, producer
LIMIT %(kept)s
