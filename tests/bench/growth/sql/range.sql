-- Range by time, a partition a month: a month goes by DROP. A key on a partitioned table must contain the
-- partition's column, and (tenant, message, producer, stored_at) would store an event again that comes again
-- a month later; so the key lives in a table of its own, which is not partitioned.

-- take_away: Put the plain table aside; its columns and checks are copied from it, so that they stay the same.
ALTER TABLE message RENAME TO message_plain

-- create: The partitioned table, without a key.
CREATE TABLE message (LIKE message_plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (stored_at)

-- drop_plain: The plain one is empty.
DROP TABLE message_plain

-- create_partitions: A partition a month, for the year before and the month after today.
DO $$
DECLARE
  first timestamptz;
BEGIN
  FOR first IN SELECT generate_series(
      date_trunc('month', now() - interval '366 days'), date_trunc('month', now() + interval '1 month'), '1 month')
  LOOP
    EXECUTE format('CREATE TABLE message_%s PARTITION OF message FOR VALUES FROM (%L) TO (%L)',
      to_char(first, 'YYYY_MM'), first, first + interval '1 month');
  END LOOP;
END $$

-- constrain: The laws of the plain table that a partitioned one can hold.
ALTER TABLE message
  ADD CONSTRAINT message_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant,
  ADD CONSTRAINT message_schema_fkey FOREIGN KEY (schema_id, event_type)
    REFERENCES event_schema (schema_id, event_type)

-- index: Within a month the way from a key to its row, which classifying a known key and tracing a message need.
CREATE INDEX message_key_idx ON message (tenant_id, message_id, producer)

-- create_key: The key; stored_at says in which partition the row is.
CREATE TABLE message_key (
  tenant_id  text COLLATE "C" NOT NULL,
  message_id text COLLATE "C" NOT NULL,
  producer   text COLLATE "C" NOT NULL,
  stored_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT message_key_pkey PRIMARY KEY (tenant_id, message_id, producer)
)

-- insert_messages: plain.sql's insert in two: claim the keys, then store the rows whose keys were free.
WITH incoming AS MATERIALIZED (
  SELECT DISTINCT ON (tenant_id COLLATE "C", message_id COLLATE "C", producer COLLATE "C") *
  FROM unnest(
    %(tenant_id)b::text[], %(message_id)b::text[], %(producer)b::text[], %(event_type)b::text[],
    %(schema_id)b::bigint[], %(occurred_at)b::timestamptz[], %(sent_at)b::timestamptz[],
    %(payload)b::text[], %(queue)b::text[], %(delivery_id)b::text[]
  ) WITH ORDINALITY AS arrays (
    tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at,
    payload, queue, delivery_id, position)
  WHERE (
      SELECT 1 FROM rejection
      WHERE rejection.queue = arrays.queue AND rejection.delivery_id = arrays.delivery_id LIMIT 1) IS NULL
    AND (
      SELECT 1 FROM duplicate
      WHERE duplicate.queue = arrays.queue AND duplicate.delivery_id = arrays.delivery_id LIMIT 1) IS NULL
  ORDER BY tenant_id COLLATE "C", message_id COLLATE "C", producer COLLATE "C", position
), fresh AS (
  INSERT INTO message_key (tenant_id, message_id, producer)
  SELECT tenant_id, message_id, producer FROM incoming
  ON CONFLICT ON CONSTRAINT message_key_pkey DO NOTHING
  RETURNING tenant_id, message_id, producer
)
INSERT INTO message (
  tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at,
  payload, context, queue, delivery_id, receive_count)
SELECT
  tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at,
  payload::jsonb, NULL, queue, delivery_id, 1
FROM incoming
JOIN fresh USING (tenant_id, message_id, producer)

-- oldest_partition: The oldest month that is whole, and where it ends.
SELECT 'message_' || to_char(month, 'YYYY_MM') AS name, month + interval '1 month' AS until
FROM (SELECT date_trunc('month', min(stored_at)) + interval '1 month' AS month FROM message_key) AS oldest

-- delete_old: Delete the old keys among these pages; a step of about five thousand.
DELETE FROM message_key
WHERE ctid >= %(from)s::text::tid AND ctid < %(to)s::text::tid AND stored_at < %(until)s

-- pages: How many pages the table of keys has.
SELECT pg_relation_size('message_key') / current_setting('block_size')::int AS pages
