-- Tenants and senders that use much disk space, for the alarm and `processor check`. The work is bounded: holders are
-- few, and messages are sampled.

-- bound: Let no statement of this transaction take longer.
SELECT set_config('statement_timeout', %(timeout_ms)s, true)

-- full_holders: Holders whose open rejections keep so much, most first.
SELECT holder, sum(bytes)::bigint AS held
FROM rejection_room
GROUP BY holder HAVING sum(bytes) >= %(bytes)s
ORDER BY held DESC, holder
LIMIT %(holders_max)s

-- pages: How many pages the table of messages has.
SELECT pg_relation_size('message') / current_setting('block_size')::int

-- large_tenants: Tenants whose messages take so much, as a share of the pages tells; what is stored beside the row is counted as it is there.
SELECT tenant_id, held
FROM (
  SELECT tenant_id,
    (sum(200 + pg_column_size(payload) + coalesce(pg_column_size(context), 0)) * 100 / %(percent)s::float8)::bigint AS held
  FROM message TABLESAMPLE SYSTEM (%(percent)s::float8)
  GROUP BY tenant_id
) AS sampled
WHERE held >= %(bytes)s
ORDER BY held DESC, tenant_id
LIMIT 1000
