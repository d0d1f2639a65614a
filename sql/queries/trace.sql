-- All rows of a message id, for `processor trace`.

-- message: As a stored message; probed tenant by tenant, since the key begins with the tenant.
SELECT 'message' AS place, found.stored_at AS at, found.tenant_id, found.message_id, found.producer,
  found.queue, found.delivery_id,
  format('stored as %%s, validated by schema %%s', found.event_type, found.schema_id) AS what
FROM tenant
CROSS JOIN LATERAL (
  SELECT * FROM message
  WHERE message.tenant_id = tenant.tenant_id AND message.message_id = %(message_id)s
) AS found
WHERE %(tenant_id)s::text IS NULL OR tenant.tenant_id = %(tenant_id)s

-- message_by_delivery: As a stored message, by the queue's id of its delivery, or by what AMQP calls the message; reads the whole table.
SELECT 'message' AS place, stored_at AS at, tenant_id, message_id, producer, queue, delivery_id,
  format('stored as %%s, validated by schema %%s', event_type, schema_id) AS what
FROM message
WHERE starts_with(delivery_id, %(message_id)s)
  AND substr(delivery_id, char_length(%(message_id)s) + 1) ~ '^(:[0-9a-f]{16})?(~[0-9a-f]{12})?$'
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)

-- duplicate: As the repetition of a stored message.
SELECT 'duplicate' AS place, received_at AS at, tenant_id, message_id, producer, queue, delivery_id,
  'the same message as one stored before; counted nowhere' AS what
FROM duplicate
WHERE (message_id = %(message_id)s OR (
    starts_with(delivery_id, %(message_id)s)
    AND substr(delivery_id, char_length(%(message_id)s) + 1) ~ '^(:[0-9a-f]{16})?(~[0-9a-f]{12})?$'))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
ORDER BY received_at

-- rejection: As a rejection that claimed the id, or whose delivery had it.
SELECT 'rejection' AS place, rejected_at AS at, tenant_id, message_id, producer, queue, delivery_id,
  format('rejection %%s (%%s): %%s: %%s', rejection_id, status, reason, detail ->> 'message') AS what
FROM rejection
WHERE (message_id = %(message_id)s OR (
    starts_with(delivery_id, %(message_id)s)
    AND substr(delivery_id, char_length(%(message_id)s) + 1) ~ '^(:[0-9a-f]{16})?(~[0-9a-f]{12})?$'))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
ORDER BY rejected_at
