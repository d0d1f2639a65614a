-- API keys, by which a gateway knows who sends. Of a key only a digest is here.

-- add_key: Add a key to a tenant.
INSERT INTO api_key (key_id, tenant_id, name, digest) VALUES (%(key_id)s, %(tenant_id)s, %(name)s, %(digest)s)

-- revoke_key: Revoke a key; gives back since when it is, which for one that was revoked before is the first time.
UPDATE api_key SET revoked_at = coalesce(revoked_at, greatest(now(), created_at))
WHERE key_id = %(key_id)s
RETURNING tenant_id, revoked_at

-- list_keys: Every key, revoked ones too, of all tenants or of one; without the digests.
SELECT key_id, tenant_id, name, created_at, revoked_at
FROM api_key
WHERE %(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s
ORDER BY tenant_id, created_at, key_id

-- known_keys: The keys in force, and whether their tenants are suspended.
SELECT key_id, api_key.tenant_id, digest, status = 'suspended' AS suspended
FROM api_key
JOIN tenant ON tenant.tenant_id = api_key.tenant_id
WHERE revoked_at IS NULL
