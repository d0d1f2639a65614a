-- The table as sql/migrations makes it, one heap and one key: what the others are compared with.

-- insert_messages: The insert of sql/queries/save.sql, its probes and its order included.
INSERT INTO message (
  tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at,
  payload, context, queue, delivery_id, receive_count)
SELECT
  tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at,
  payload::jsonb, NULL, queue, delivery_id, 1
FROM unnest(
  %(tenant_id)b::text[], %(message_id)b::text[], %(producer)b::text[], %(event_type)b::text[],
  %(schema_id)b::bigint[], %(occurred_at)b::timestamptz[], %(sent_at)b::timestamptz[],
  %(payload)b::text[], %(queue)b::text[], %(delivery_id)b::text[]
) WITH ORDINALITY AS incoming (
  tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at,
  payload, queue, delivery_id, position)
WHERE (
    SELECT 1 FROM rejection
    WHERE rejection.queue = incoming.queue AND rejection.delivery_id = incoming.delivery_id LIMIT 1) IS NULL
  AND (
    SELECT 1 FROM duplicate
    WHERE duplicate.queue = incoming.queue AND duplicate.delivery_id = incoming.delivery_id LIMIT 1) IS NULL
ORDER BY tenant_id COLLATE "C", message_id COLLATE "C", producer COLLATE "C", position
ON CONFLICT ON CONSTRAINT message_pkey DO NOTHING

-- delete_old: Delete what is old among the rows of these pages; a step of about five thousand rows.
DELETE FROM message
WHERE ctid >= %(from)s::text::tid AND ctid < %(to)s::text::tid AND stored_at < %(until)s

-- pages: How many pages the table has.
SELECT pg_relation_size('message') / current_setting('block_size')::int AS pages
