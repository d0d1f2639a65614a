-- What `processor audit` asks: first what the tables prove by themselves, then against a manifest.

-- outcomes: Rows by outcome.
SELECT
  (SELECT count(*) FROM message) AS message,
  (SELECT count(*) FROM duplicate) AS duplicate,
  (SELECT count(*) FROM rejection WHERE status = 'open') AS rejection_open,
  (SELECT count(*) FROM rejection WHERE status = 'discarded') AS rejection_discarded,
  (SELECT count(*) FROM rejection WHERE status = 'replayed') AS rejection_replayed

-- in_two_tables: Deliveries that stand in more than one table; a replayed rejection has handed its place on.
SELECT queue, delivery_id, string_agg(place, ', ' ORDER BY place) AS places
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

-- duplicates_of_nothing: Duplicates whose message is not there.
SELECT queue, delivery_id, tenant_id, message_id, producer
FROM duplicate
WHERE NOT EXISTS (
  SELECT FROM message
  WHERE message.tenant_id = duplicate.tenant_id AND message.message_id = duplicate.message_id
    AND message.producer = duplicate.producer)
ORDER BY queue, delivery_id

-- replayed_to_nothing: Rejections closed as replayed whose delivery is in no other table.
SELECT queue, delivery_id, rejection_id
FROM rejection
WHERE status = 'replayed'
  AND NOT EXISTS (
    SELECT FROM message
    WHERE message.queue = rejection.queue AND message.delivery_id = rejection.delivery_id)
  AND NOT EXISTS (
    SELECT FROM duplicate
    WHERE duplicate.queue = rejection.queue AND duplicate.delivery_id = rejection.delivery_id)
ORDER BY rejection_id

-- create_manifest: A place for the manifest's lines, for this session only.
CREATE TEMPORARY TABLE manifest_line (
  state text NOT NULL, tenant_id text COLLATE "C", message_id text COLLATE "C", digest text, delivery_id text COLLATE "C"
)

-- copy_manifest: Bring the lines in.
COPY manifest_line (state, tenant_id, message_id, digest, delivery_id) FROM STDIN

-- index_manifest: Count them, so that the plans of the questions below fit.
ANALYZE manifest_line

-- accepted: How many deliveries the queue accepted, and where each is: one row.
WITH accepted AS (SELECT DISTINCT delivery_id FROM manifest_line WHERE state = 'accepted'),
placed AS (
  SELECT delivery_id,
    EXISTS (SELECT FROM message WHERE message.delivery_id = accepted.delivery_id) AS as_message,
    EXISTS (SELECT FROM duplicate WHERE duplicate.delivery_id = accepted.delivery_id) AS as_duplicate,
    EXISTS (SELECT FROM rejection
      WHERE rejection.delivery_id = accepted.delivery_id AND rejection.status <> 'replayed') AS as_rejection
  FROM accepted)
SELECT
  count(*) AS accepted,
  count(*) FILTER (WHERE as_message) AS message,
  count(*) FILTER (WHERE as_duplicate) AS duplicate,
  count(*) FILTER (WHERE as_rejection) AS rejection,
  count(*) FILTER (WHERE NOT (as_message OR as_duplicate OR as_rejection)) AS missing
FROM placed

-- missing: Accepted deliveries that are in no table.
SELECT DISTINCT delivery_id, tenant_id, message_id
FROM manifest_line
WHERE state = 'accepted'
  AND NOT EXISTS (SELECT FROM message WHERE message.delivery_id = manifest_line.delivery_id)
  AND NOT EXISTS (SELECT FROM duplicate WHERE duplicate.delivery_id = manifest_line.delivery_id)
  AND NOT EXISTS (
    SELECT FROM rejection
    WHERE rejection.delivery_id = manifest_line.delivery_id AND rejection.status <> 'replayed')
ORDER BY delivery_id

-- unexpected: Messages that nobody says to have sent.
SELECT tenant_id, message_id, producer, queue, delivery_id
FROM message
WHERE NOT EXISTS (
    SELECT FROM manifest_line
    WHERE manifest_line.tenant_id = message.tenant_id AND manifest_line.message_id = message.message_id)
  AND NOT EXISTS (SELECT FROM manifest_line WHERE manifest_line.delivery_id = message.delivery_id)
ORDER BY tenant_id, message_id, producer

-- stored_twice: Sent messages that stand more than once in the table, under several producers.
SELECT tenant_id, message_id, count(*) AS count
FROM message
WHERE EXISTS (
  SELECT FROM manifest_line
  WHERE manifest_line.tenant_id = message.tenant_id AND manifest_line.message_id = message.message_id)
GROUP BY tenant_id, message_id
HAVING count(*) > 1
ORDER BY tenant_id, message_id

-- stored_with_digests: Each stored message with the digests that its delivery, or else its id, may have.
SELECT tenant_id, message_id, producer, delivery_id, payload::text AS payload,
  coalesce(
    (SELECT array_agg(DISTINCT digest) FROM manifest_line WHERE manifest_line.delivery_id = message.delivery_id),
    (SELECT array_agg(DISTINCT digest) FROM manifest_line
      WHERE manifest_line.tenant_id = message.tenant_id AND manifest_line.message_id = message.message_id)
  ) AS digests
FROM message
