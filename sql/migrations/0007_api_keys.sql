-- API keys: by whom a gateway knows which tenant sends. Of a key only a digest is kept, so that whoever reads
-- this table can't send with what is in it.

-- It adds a foreign key to tenant: rather fail than make saves wait for long, and be run again.
SET LOCAL lock_timeout = '10s';

CREATE TABLE api_key (
  key_id     text COLLATE "C" NOT NULL CONSTRAINT api_key_pkey PRIMARY KEY,
  tenant_id  text COLLATE "C" NOT NULL CONSTRAINT api_key_tenant_fkey REFERENCES tenant,
  name       text NOT NULL DEFAULT '',
  digest     bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz NULL,
  CONSTRAINT api_key_id_fit CHECK (key_id ~ '^[0-9a-f]{16}$'),
  CONSTRAINT api_key_name_fit CHECK (char_length(name) <= 256 AND name !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT api_key_digest_whole CHECK (octet_length(digest) = 32),
  CONSTRAINT api_key_revoked_after CHECK (revoked_at >= created_at)
);
CREATE INDEX api_key_tenant_idx ON api_key (tenant_id);
COMMENT ON TABLE api_key IS 'A key by which a producer sends to the gateway as one tenant (processor key add). A key is never changed: revoke it and add another.';
COMMENT ON COLUMN api_key.key_id IS 'The half of the key that is no secret: ep_<key_id>_<secret>.';
COMMENT ON COLUMN api_key.tenant_id IS 'The tenant as which its holder sends, and as no other.';
COMMENT ON COLUMN api_key.name IS 'What it is for, or who holds it, in words for people.';
COMMENT ON COLUMN api_key.digest IS 'SHA-256 of the secret half, which has 256 random bits, so that nobody can guess it from this.';
COMMENT ON COLUMN api_key.created_at IS 'When it was added.';
COMMENT ON COLUMN api_key.revoked_at IS 'From when on it opens nothing; NULL: it is in force. A gateway notices within GATEWAY_KEYS_EVERY_S seconds.';

CREATE FUNCTION api_key_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.key_id, NEW.tenant_id, NEW.digest, NEW.created_at)
      IS DISTINCT FROM (OLD.key_id, OLD.tenant_id, OLD.digest, OLD.created_at)
    OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at) THEN
    RAISE EXCEPTION 'API key % stays what it is, and revoked once it was revoked', OLD.key_id
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'api_key_stays',
        HINT = 'add another one: processor key add';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION api_key_stays() IS 'Refuses to give a key to another tenant, to change its digest, or to bring it back after it was revoked.';
CREATE TRIGGER api_key_stays BEFORE UPDATE ON api_key FOR EACH ROW EXECUTE FUNCTION api_key_stays();

DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION api_key_stays() SET search_path = %I, pg_temp', current_schema());
  BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_gateway') THEN
      CREATE ROLE processor_gateway NOLOGIN;
    END IF;
  EXCEPTION
    -- Roles belong to the whole server: another database's migration may have made it a moment ago.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
      RAISE NOTICE 'may not create role processor_gateway: create it and grant it as sql/README.md says';
  END;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_gateway') THEN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO processor_gateway', current_schema());
    -- It stands where the internet knocks: who sends is all that it has to know.
    GRANT SELECT ON tenant, api_key TO processor_gateway;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON api_key TO processor_reader;
  END IF;
END $$;

-- Whoever is in a group that all gateways share must not thereby read for a tenant.
ALTER TABLE tenant_reader DROP CONSTRAINT tenant_reader_role_own, ADD CONSTRAINT tenant_reader_role_own CHECK (
  role_name NOT IN (
    'processor_tenant_reader', 'processor_writer', 'processor_reader', 'processor_retention', 'processor_biller',
    'processor_gateway'));
