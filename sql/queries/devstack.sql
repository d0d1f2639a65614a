-- Queries of `processor demo` and `processor dev`, for display; `processor audit` verifies the tables.

-- database_exists: A row if the stack's database has been made.
SELECT FROM pg_database WHERE datname = 'events';

-- make_database: The stack's database, owned by its superuser.
CREATE DATABASE events;

-- rows_so_far: How many deliveries have found their table, for the progress line.
SELECT (SELECT count(*) FROM message) AS stored,
       (SELECT count(*) FROM duplicate) AS duplicates,
       (SELECT count(*) FROM rejection) AS rejected;

-- outcomes_by_tenant: Deliveries by tenant and outcome, rejections by reason; NULL for what names no tenant that we know.
SELECT tenant_id, 'stored' AS outcome, count(*) AS deliveries FROM message GROUP BY tenant_id
UNION ALL
SELECT tenant_id, 'duplicate', count(*) FROM duplicate GROUP BY tenant_id
UNION ALL
SELECT tenant.tenant_id, rejection.reason, count(*)
  FROM rejection LEFT JOIN tenant USING (tenant_id)
 GROUP BY tenant.tenant_id, rejection.reason;

-- handed_over_meters: How many meters are handed over.
SELECT count(*) FROM meter WHERE is_handed_over;

-- usage_by_state: What pulses came to by tenant, product and state, all hours together.
SELECT tenant_id, group_by ->> 'product_sku', group_by ->> 'use_unity', sum(value), sum(messages), state
  FROM usage
 WHERE event_type = 'pulse' AND group_by ?& '{product_sku,use_unity}'
 GROUP BY 1, 2, 3, state
 ORDER BY 1, 2, 3, state;

-- usage_handed_over: What pulses came to in each hour that is over, by tenant and product.
SELECT tenant_id, group_by ->> 'product_sku', group_by ->> 'use_unity',
       to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), value
  FROM usage
 WHERE event_type = 'pulse' AND group_by ?& '{product_sku,use_unity}' AND revision > 0;

-- latest_definition: Whether the newest schema of an event type, shared (no tenant) or one tenant's own, is this one.
SELECT definition = %(definition)s::jsonb AS is_this
  FROM event_schema
 WHERE event_type = %(event_type)s AND tenant_id IS NOT DISTINCT FROM %(tenant_id)s
 ORDER BY version DESC
 LIMIT 1;

-- add_scoped_event_type: Add an event type whose ids are unique within some values of the payload alone; one that is there is left as it is.
INSERT INTO event_type (event_type, id_scope) VALUES (%(event_type)s, %(id_scope)s)
ON CONFLICT ON CONSTRAINT event_type_pkey DO NOTHING;

-- add_sample_meter: Add a shared meter, unless there is one of this name.
INSERT INTO meter (
  meter, event_type, aggregation, value_pointer, group_names, group_pointers, window_size, past_limit, future_limit,
  is_handed_over)
SELECT
  %(meter)s, %(event_type)s, CASE WHEN %(value_pointer)s::text IS NULL THEN 'count' ELSE 'sum' END, %(value_pointer)s,
  %(group_names)s::text[], %(group_pointers)s::text[], %(window_size)s,
  CASE WHEN %(window_size)s <> 'none' THEN interval '92 days' END,
  CASE WHEN %(window_size)s <> 'none' THEN interval '1 hour' END, %(window_size)s <> 'none'
WHERE NOT EXISTS (SELECT FROM meter WHERE meter.meter = %(meter)s);
