-- API keys: they tell a gateway which tenant sends, and which events the key allows. Only digests are stored, so that
-- a reader of this table can't use the keys.

CREATE TABLE api_key (
  key_id        text COLLATE "C" NOT NULL CONSTRAINT api_key_pkey PRIMARY KEY,
  tenant_id     text COLLATE "C" NOT NULL CONSTRAINT api_key_tenant_fkey REFERENCES tenant,
  name          text NOT NULL DEFAULT '',
  digest        bytea NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT now(),
  revoked_at    timestamptz NULL,
  event_types   text[] NULL,
  producers     text[] NULL,
  may_void      boolean NOT NULL DEFAULT false,
  may_correct   boolean NOT NULL DEFAULT false,
  digest_rounds smallint NOT NULL DEFAULT 1,
  CONSTRAINT api_key_id_fit CHECK (key_id ~ '^[0-9a-f]{16}$'),
  CONSTRAINT api_key_name_fit CHECK (char_length(name) <= 256 AND name !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT api_key_digest_whole CHECK (octet_length(digest) = 32),
  CONSTRAINT api_key_revoked_after CHECK (revoked_at >= created_at),
  CONSTRAINT api_key_digest_rounds_known CHECK (digest_rounds IN (1, 2)),
  CONSTRAINT api_key_event_types_named CHECK (cardinality(event_types) BETWEEN 1 AND 100
    AND array_ndims(event_types) = 1 AND array_position(event_types, NULL) IS NULL),
  CONSTRAINT api_key_producers_named CHECK (cardinality(producers) BETWEEN 1 AND 100
    AND array_ndims(producers) = 1 AND array_position(producers, NULL) IS NULL)
);
CREATE INDEX api_key_tenant_idx ON api_key (tenant_id);
COMMENT ON TABLE api_key IS 'A key by which a producer sends to the gateway as one tenant (processor key add). A key is never changed: revoke it and add another.';
COMMENT ON COLUMN api_key.key_id IS 'The half of the key that is no secret: ep_<key_id>_<secret>.';
COMMENT ON COLUMN api_key.tenant_id IS 'The tenant as which its holder sends, and as no other.';
COMMENT ON COLUMN api_key.name IS 'What it is for, or who holds it, in words for people.';
COMMENT ON COLUMN api_key.digest IS 'SHA-256 of the secret half, or of that once more (digest_rounds). The secret has 256 random bits, so that nobody can guess it from this.';
COMMENT ON COLUMN api_key.created_at IS 'When it was added.';
COMMENT ON COLUMN api_key.revoked_at IS 'From when on it opens nothing; NULL: it is in force. A gateway notices within GATEWAY_KEYS_EVERY_S seconds.';
COMMENT ON COLUMN api_key.event_types IS 'The event types that it may send, besides voids; NULL: any.';
COMMENT ON COLUMN api_key.producers IS 'As which producers it may send, and whose messages it may void: a name with * at its end stands for all that begin so, the empty name for events that name no producer. NULL: any that is not reserved, by RESERVED_PRODUCERS or by a key of the tenant that is in force, is older and names it.';
COMMENT ON COLUMN api_key.may_void IS 'Whether it may send events of type void, which cancel what another message of its producers had counted.';
COMMENT ON COLUMN api_key.may_correct IS 'Whether it may send negative amounts where a meter adds them (meter.allows_corrections).';
COMMENT ON COLUMN api_key.digest_rounds IS 'How often the secret went through SHA-256: once in keys of releases that know no rights, twice in all others, which such releases therefore take for wrong ones.';

CREATE FUNCTION api_key_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF to_jsonb(NEW) - ARRAY['name', 'revoked_at'] <> to_jsonb(OLD) - ARRAY['name', 'revoked_at']
    OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at) THEN
    RAISE EXCEPTION 'API key % stays what it is, and revoked once it was revoked', OLD.key_id
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'api_key_stays',
        HINT = 'add another one: processor key add';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION api_key_stays() IS 'Refuses to give a key to another tenant, to change its digest or what it may send, or to bring it back after it was revoked.';
CREATE TRIGGER api_key_stays BEFORE UPDATE ON api_key FOR EACH ROW EXECUTE FUNCTION api_key_stays();
