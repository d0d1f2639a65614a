-- The questions and deeds of `processor rejection`. Every selection takes the same parameters, NULL for "any".

-- select_open: The open rejections after one id, oldest first, whole, for replay; without those sent before a moment, if one is given.
SELECT rejection_id, queue, delivery_id, body, attributes, sent_at, receive_count, sender_id, bound_tenant_id,
  detail ->> 'fault' AS fault
FROM rejection
WHERE status = 'open' AND rejection_id > %(after)s
  AND (%(rejection_ids)s::bigint[] IS NULL OR rejection_id = ANY (%(rejection_ids)s::bigint[]))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR rejected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR rejected_at < %(until)s)
  AND NOT coalesce(sent_at < %(aged_before)s::timestamptz, false)
ORDER BY rejection_id
LIMIT %(limit)s

-- aged_before: The moment of sending before which a rejection's message may have been stored, and removed since; NULL if no message ever was removed. Younger ones hold their message, and what was sent longer after the last removed one than keys are kept was never to be known as the same.
SELECT least(
  now() - %(key_days)s::int * interval '24 hours',
  (day + 1)::timestamp AT TIME ZONE 'UTC' + %(key_days)s::int * interval '24 hours') AS aged_before
FROM (SELECT max(day) AS day FROM removal WHERE outcome = 'message') AS last_removed
WHERE day IS NOT NULL

-- count_aged: How many of the selected open rejections were sent before a moment.
SELECT count(*)
FROM rejection
WHERE status = 'open' AND sent_at < %(aged_before)s
  AND (%(rejection_ids)s::bigint[] IS NULL OR rejection_id = ANY (%(rejection_ids)s::bigint[]))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR rejected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR rejected_at < %(until)s)

-- list: Rejections, newest first, without their bodies.
SELECT rejection_id, rejected_at, status, reason, tenant_id, event_type, message_id, producer,
  detail ->> 'message' AS message, receive_count, replay_count, queue, delivery_id, closed_at
FROM rejection
WHERE (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(rejection_ids)s::bigint[] IS NULL OR rejection_id = ANY (%(rejection_ids)s::bigint[]))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR rejected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR rejected_at < %(until)s)
ORDER BY rejection_id DESC
LIMIT %(limit)s

-- show: One rejection, whole.
SELECT * FROM rejection WHERE rejection_id = %(rejection_id)s

-- stats: Rejections by status, reason, tenant and event type, most first.
SELECT status, reason, tenant_id, event_type, count(*) AS count,
  min(rejected_at) AS first_at, max(rejected_at) AS last_at
FROM rejection
WHERE (%(rejection_ids)s::bigint[] IS NULL OR rejection_id = ANY (%(rejection_ids)s::bigint[]))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR rejected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR rejected_at < %(until)s)
GROUP BY status, reason, tenant_id, event_type
ORDER BY count DESC, status, reason, tenant_id, event_type

-- discard: Give up open rejections; the rows stay.
UPDATE rejection SET status = 'discarded', closed_at = now()
WHERE status = 'open'
  AND (%(rejection_ids)s::bigint[] IS NULL OR rejection_id = ANY (%(rejection_ids)s::bigint[]))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR rejected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR rejected_at < %(until)s)
