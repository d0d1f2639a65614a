-- Changes of the registry. A trigger raises registry.version at the commit of each change.

-- add_tenant: Add a tenant; one that is there is left as it is.
INSERT INTO tenant (tenant_id, name) VALUES (%(tenant_id)s, %(name)s) ON CONFLICT ON CONSTRAINT tenant_pkey DO NOTHING

-- set_tenant_status: Suspend or resume a tenant; gives back whether it exists.
UPDATE tenant SET status = %(status)s WHERE tenant_id = %(tenant_id)s RETURNING tenant_id

-- add_event_type: Add an event type; one that is there is left as it is.
INSERT INTO event_type (event_type, description, id_scope) VALUES (%(event_type)s, %(description)s, %(id_scope)s)
ON CONFLICT ON CONSTRAINT event_type_pkey DO NOTHING

-- lock_event_type: Let one version of an event type's schemas be published at a time.
SELECT event_type FROM event_type WHERE event_type = %(event_type)s FOR NO KEY UPDATE

-- scope_ids: Choose within which values of the payload an event type's ids are unique; what they are already is left as it is.
UPDATE event_type SET id_scope = %(id_scope)s WHERE event_type = %(event_type)s AND id_scope <> %(id_scope)s::text[]

-- settle_id_scope: Ask now, before there is a schema of this transaction, what would be asked at the commit.
SET CONSTRAINTS event_type_id_scope_stays IMMEDIATE

-- publish_schema: Publish the next version of an event type's schema, shared or a tenant's own.
INSERT INTO event_schema (event_type, tenant_id, version, definition, formats)
SELECT %(event_type)s, %(tenant_id)s, coalesce(max(version), 0) + 1, %(definition)s::jsonb, %(formats)s
FROM event_schema
WHERE event_type = %(event_type)s AND tenant_id IS NOT DISTINCT FROM %(tenant_id)s
RETURNING version

-- promise_compat: Choose what is asked of an event type's next versions.
UPDATE event_type SET compat = %(compat)s WHERE event_type = %(event_type)s AND compat <> %(compat)s

-- compat: What is asked of an event type's next version.
SELECT compat FROM event_type WHERE event_type = %(event_type)s

-- compared_schema: One version of a schema, a tenant's own or shared; without a version the latest that applies to the tenant.
SELECT version, tenant_id, definition::text, formats
FROM event_schema
WHERE event_type = %(event_type)s
  AND (tenant_id IS NOT DISTINCT FROM %(tenant_id)s OR tenant_id IS NULL AND %(version)s::int IS NULL)
  AND (%(version)s::int IS NULL OR version = %(version)s)
ORDER BY tenant_id NULLS LAST, version DESC
LIMIT 1

-- list_tenants: Every tenant, and the queue by which it was registered.
SELECT tenant_id, name, status, created_at, registered_by FROM tenant ORDER BY tenant_id

-- add_queue: Begin to say something of a queue; one that is there is left as it is.
INSERT INTO queue (queue) VALUES (%(queue)s) ON CONFLICT ON CONSTRAINT queue_pkey DO NOTHING

-- lock_queue: What is said of a queue, and stays until the end of this transaction.
SELECT
  unwrap, mapping, tenants, event_type, registers_tenants, registers_max, event_types, producers, may_void, may_correct
FROM queue
WHERE queue = %(queue)s
FOR UPDATE

-- set_queue: Say this of a queue.
UPDATE queue
SET unwrap = %(unwrap)s, mapping = %(mapping)s::jsonb, tenants = %(tenants)s, event_type = %(event_type)s,
  registers_tenants = %(registers_tenants)s, registers_max = %(registers_max)s, event_types = %(event_types)s,
  producers = %(producers)s, may_void = %(may_void)s, may_correct = %(may_correct)s
WHERE queue = %(queue)s

-- empty_queue: Say nothing of a queue any more.
UPDATE queue
SET unwrap = NULL, mapping = NULL, tenants = NULL, event_type = NULL, registers_tenants = false, registers_max = DEFAULT,
  event_types = NULL, producers = NULL, may_void = true, may_correct = true
WHERE queue = %(queue)s
  AND (unwrap, mapping, tenants, event_type, registers_tenants, registers_max, event_types, producers, may_void, may_correct)
    IS DISTINCT FROM (NULL, NULL, NULL, NULL, false, 1000, NULL, NULL, true, true)

-- list_queues: What is said of queues, or of one.
SELECT
  queue, unwrap, mapping, tenants, event_type, registers_tenants, registers_max, event_types, producers, may_void,
  may_correct, registered_at
FROM queue
WHERE (%(queue)s::text IS NULL OR queue = %(queue)s)
  AND (unwrap, mapping, tenants, event_type, registers_tenants, registers_max, event_types, producers, may_void, may_correct)
    IS DISTINCT FROM (NULL, NULL, NULL, NULL, false, 1000, NULL, NULL, true, true)
ORDER BY queue

-- unknown_of_queue: Those tenants of a queue's rules that are not registered, and whether no schema is of its event type.
SELECT
  ARRAY(
    SELECT asked FROM unnest(tenants) AS asked
    WHERE NOT EXISTS (SELECT FROM tenant WHERE tenant_id = asked)
    ORDER BY asked) AS tenants,
  event_type IS NOT NULL
    AND NOT EXISTS (SELECT FROM event_schema WHERE event_schema.event_type = queue.event_type) AS event_type
FROM queue
WHERE queue = %(queue)s

-- list_schemas: Every version of every schema, without the definitions.
SELECT event_type, tenant_id, version, schema_id, published_at, id_scope, formats, compat
FROM event_schema JOIN event_type USING (event_type)
WHERE (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
ORDER BY event_type, tenant_id NULLS FIRST, version

-- show_schema: One version of a schema, the definition as text; without a version the latest.
SELECT event_type, tenant_id, version, schema_id, published_at, id_scope, formats, compat, definition::text AS definition
FROM event_schema JOIN event_type USING (event_type)
WHERE event_type = %(event_type)s AND tenant_id IS NOT DISTINCT FROM %(tenant_id)s
  AND (%(version)s::int IS NULL OR version = %(version)s)
ORDER BY version DESC
LIMIT 1
