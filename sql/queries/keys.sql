-- API keys, which tell a gateway the sending tenant. Only digests are stored.

-- add_key: Add a key to a tenant.
INSERT INTO api_key (key_id, tenant_id, name, digest, digest_rounds, event_types, producers, may_void, may_correct)
VALUES (%(key_id)s, %(tenant_id)s, %(name)s, %(digest)s, 2, %(event_types)s, %(producers)s, %(may_void)s, %(may_correct)s)

-- around_key: The older keys of its tenant in force that may use any producer, and those of its event types that have no schema.
SELECT
  ARRAY(
    SELECT older.key_id FROM api_key AS older
    WHERE older.tenant_id = added.tenant_id AND older.revoked_at IS NULL AND older.producers IS NULL
      AND older.created_at < added.created_at
    ORDER BY older.key_id) AS wide,
  ARRAY(
    SELECT asked FROM unnest(event_types) AS asked
    WHERE NOT EXISTS (
      SELECT FROM event_schema
      WHERE event_type = asked AND (event_schema.tenant_id IS NULL OR event_schema.tenant_id = added.tenant_id))
    ORDER BY asked) AS unknown
FROM api_key AS added
WHERE key_id = %(key_id)s

-- revoke_key: Revoke a key; gives back since when it is, which for one that was revoked before is the first time.
UPDATE api_key SET revoked_at = coalesce(revoked_at, greatest(now(), created_at))
WHERE key_id = %(key_id)s
RETURNING tenant_id, revoked_at

-- list_keys: Every key, revoked ones too, of all tenants or of one; without the digests.
SELECT key_id, tenant_id, name, event_types, producers, may_void, may_correct, created_at, revoked_at
FROM api_key
WHERE %(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s
ORDER BY tenant_id, created_at, key_id

-- known_keys: The keys in force and what they may send, and whether their tenants are suspended. What an older key of the tenant names is reserved for it; whatever is added later takes nothing from a key.
SELECT
  key_id, api_key.tenant_id, digest, digest_rounds, status = 'suspended' AS suspended, event_types, producers, may_void, may_correct,
  CASE WHEN producers IS NULL THEN ARRAY(
    SELECT DISTINCT named
    FROM api_key AS older CROSS JOIN LATERAL unnest(older.producers) AS named
    WHERE older.tenant_id = api_key.tenant_id AND older.revoked_at IS NULL
      AND older.created_at < api_key.created_at AND named <> '*'
    ORDER BY named) END AS reserved
FROM api_key
JOIN tenant ON tenant.tenant_id = api_key.tenant_id
WHERE revoked_at IS NULL

-- known_scopes: The event types whose stored producers begin with their name, and how many values follow it.
SELECT event_type, cardinality(id_scope) FROM event_type WHERE id_scope <> '{}'

-- known_corrections: Where meters add numbers that may be negative: event type, tenant (NULL: any) and JSON pointer.
SELECT event_type, tenant_id, value_pointer
FROM meter
WHERE status = 'active' AND allows_corrections AND value_pointer IS NOT NULL
ORDER BY meter_id
