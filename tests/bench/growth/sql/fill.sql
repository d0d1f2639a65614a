-- How the growing tables are filled without a queue: on the server, from samples, far faster than messages
-- come. What decides the cost of the next row is the same as if they had come one by one: each batch of 500
-- is sorted by key as save sorts it, and the index is grown by inserts, never built at the end.

-- create_samples: What messages are drawn from; rows of the growing tables and measured ones alike.
CREATE UNLOGGED TABLE growth_sample (
  sample     bigint NOT NULL CONSTRAINT growth_sample_pkey PRIMARY KEY,
  tenant_id  text COLLATE "C" NOT NULL,
  event_type text COLLATE "C" NOT NULL,
  schema_id  bigint NOT NULL,
  producer   text COLLATE "C" NOT NULL,
  payload    jsonb NOT NULL
)

-- insert_samples: Keep one sample.
INSERT INTO growth_sample
SELECT %(sample)s, %(tenant_id)s, %(event_type)s, schema_id, %(producer)s, %(payload)s::jsonb
FROM event_schema
WHERE event_type = %(event_type)s AND event_schema.tenant_id IS NULL

-- fill_messages: Store a stretch of messages, spread evenly over the year before the fill began.
INSERT INTO message (
  tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at, stored_at, payload, context,
  queue, delivery_id, receive_count)
SELECT
  tenant_id, message_id, producer, event_type, schema_id,
  CASE WHEN event_type <> 'pulse' THEN date_trunc('second', stored_at - interval '2 seconds') END,
  stored_at - random() * interval '1 second', stored_at, payload, NULL, 'events', gen_random_uuid()::text, 1
FROM (
  SELECT
    growth_sample.*, row / 500 AS batch, stored_at,
    CASE WHEN %(ids)s = 'random' THEN gen_random_uuid()::text
    ELSE overlay(lpad(to_hex((extract(epoch FROM stored_at) * 1000)::bigint), 12, '0') PLACING '-' FROM 9 FOR 0)
      || '-7' || substr(gen_random_uuid()::text, 16) END AS message_id
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS row
  CROSS JOIN LATERAL (
    SELECT %(ended_at)s::timestamptz - interval '365 days' * (1 - row / %(rows_max)s::double precision) AS stored_at
  ) AS moment
  JOIN growth_sample ON growth_sample.sample = row %% %(samples)s
) AS drawn
ORDER BY batch, tenant_id, message_id COLLATE "C"

-- fill_duplicates: Three in a hundred of that stretch came twice.
INSERT INTO duplicate (queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count, received_at)
SELECT queue, gen_random_uuid()::text, tenant_id, message_id, producer, sent_at, 1, stored_at + interval '1 minute'
FROM message
WHERE stored_at > %(ended_at)s::timestamptz - interval '365 days' * (1 - (%(first)s - 0.5) / %(rows_max)s::double precision)
  AND random() < 0.03

-- fill_keys: The same stretch's keys, where a table of their own holds the primary key.
INSERT INTO message_key (tenant_id, message_id, producer, stored_at)
SELECT tenant_id, message_id, producer, stored_at
FROM message
WHERE stored_at > %(ended_at)s::timestamptz - interval '365 days' * (1 - (%(first)s - 0.5) / %(rows_max)s::double precision)

-- fill_rejections: Five thousand deliveries that were refused, a fifth of them closed since.
INSERT INTO rejection (
  queue, delivery_id, reason, detail, body, attributes, tenant_id, event_type, message_id, producer,
  sent_at, receive_count, rejected_at, status, closed_at)
SELECT
  'events', gen_random_uuid()::text,
  CASE WHEN row %% 3 = 0 THEN 'unknown_tenant' ELSE 'schema_violation' END,
  CASE WHEN row %% 3 = 0 THEN '{"message": "no such tenant"}' ELSE jsonb_build_object(
    'message', 'the payload breaks its schema', 'error_count', 1, 'errors', jsonb_build_array(
      jsonb_build_object('pointer', '/total', 'rule', (ARRAY['type', 'minimum'])[1 + row %% 2],
        'message', 'not of the type number'))) END,
  convert_to(payload::text, 'UTF8'), '{}',
  CASE WHEN row %% 3 = 0 THEN 'stranger-' || row %% 17 ELSE tenant_id END,
  event_type, gen_random_uuid()::text, producer, moment, 1, moment,
  CASE WHEN row %% 5 = 0 THEN 'discarded' ELSE 'open' END, CASE WHEN row %% 5 = 0 THEN moment END
FROM generate_series(1, 5000) AS row
CROSS JOIN LATERAL (SELECT %(ended_at)s::timestamptz - interval '365 days' * (1 - row / 5000.0) AS moment) AS moments
JOIN growth_sample ON growth_sample.sample = row %% %(samples)s

-- fill_asked_for: The one message that the ten questions name, with a duplicate and a rejection of its id.
WITH stored AS (
  INSERT INTO message (
    tenant_id, message_id, event_type, schema_id, sent_at, payload, queue, delivery_id, receive_count)
  SELECT 'acme', 'order-1', event_type, schema_id, now(), '{}', 'events', 'delivery-1', 1
  FROM event_schema WHERE event_type = 'order.created'
), repeated AS (
  INSERT INTO duplicate VALUES ('events', 'delivery-2', 'acme', 'order-1', '', now(), 1, now())
)
INSERT INTO rejection (queue, delivery_id, reason, detail, body, attributes, tenant_id, message_id, sent_at, receive_count)
VALUES ('events', 'delivery-3', 'id_conflict', '{"message": "other content"}', '{}', '{}', 'acme', 'order-1', now(), 1)
