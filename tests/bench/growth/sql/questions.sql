-- Ways to ask less of a large table: three of the ten questions, with a bound on stored_at that its index serves.

-- events_by_tenant_and_type_in_seven_days: The first question, of a week.
SELECT tenant_id, event_type, count(*) AS messages, min(stored_at) AS first, max(stored_at) AS last
FROM message
WHERE stored_at >= now() - interval '7 days'
GROUP BY tenant_id, event_type
ORDER BY messages DESC

-- usage_of_this_month_by_moment_of_storing: The ninth, spared the months before; what is dated ahead of its storing by more than a day is not seen.
SELECT tenant_id, payload ->> 'product_sku' AS product_sku, payload ->> 'use_unity' AS use_unity,
  sum((payload ->> 'used_amount')::numeric) AS used_amount, count(*) AS pulses
FROM message
WHERE event_type = 'pulse' AND coalesce(occurred_at, sent_at) >= date_trunc('month', now())
  AND stored_at >= date_trunc('month', now()) - interval '1 day'
GROUP BY tenant_id, product_sku, use_unity
ORDER BY tenant_id, product_sku, use_unity

-- schema_versions_in_use_in_seven_days: The tenth, of a week.
SELECT event_schema.event_type, coalesce(event_schema.tenant_id, '(shared)') AS owner, event_schema.version,
  count(message.message_id) AS messages, max(message.stored_at) AS last
FROM event_schema
LEFT JOIN message ON message.schema_id = event_schema.schema_id
  AND message.event_type = event_schema.event_type AND message.stored_at >= now() - interval '7 days'
GROUP BY event_schema.event_type, event_schema.tenant_id, event_schema.version
ORDER BY event_schema.event_type, owner, event_schema.version
