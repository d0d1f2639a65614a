-- Known noise is discarded at once: a rejection that a rule of the registry matches never waits for a person. It is a
-- row like any other, counted by its rule, and goes after a day. And an envelope may stand in another.

-- Rather fail than make others wait for long, and be run again.
SET LOCAL lock_timeout = '10s';
SELECT pg_advisory_xact_lock(registry_lock_key());

CREATE TABLE rejection_rule (
  rule_id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT rejection_rule_pkey PRIMARY KEY,
  reason          text NOT NULL,
  queue           text COLLATE "C" NULL,
  tenant_id       text COLLATE "C" NULL,
  event_type      text COLLATE "C" NULL,
  conditions      jsonb NOT NULL DEFAULT '{}',
  added_at        timestamptz NOT NULL DEFAULT now(),
  retired_at      timestamptz NULL,
  removed_count   bigint NOT NULL DEFAULT 0,
  removed_last_at timestamptz NULL,
  -- Not what the database finds out (id_conflict, unstorable), nor what nobody read (dead_lettered).
  CONSTRAINT rejection_rule_reason_known CHECK (reason IN (
    'not_utf8', 'not_json', 'envelope_invalid', 'unknown_tenant', 'tenant_suspended', 'unknown_event_type',
    'unknown_schema_version', 'schema_violation', 'too_large')),
  CONSTRAINT rejection_rule_texts_fit CHECK (
    char_length(queue) <= 256 AND char_length(tenant_id) <= 256 IS NOT false AND char_length(event_type) <= 256 IS NOT false),
  CONSTRAINT rejection_rule_conditions_shape CHECK (jsonb_typeof(conditions) = 'object' AND octet_length(conditions::text) <= 4096),
  -- A reason alone would discard the good events of whoever makes a new mistake.
  CONSTRAINT rejection_rule_narrow CHECK (
    queue IS NOT NULL OR tenant_id IS NOT NULL OR event_type IS NOT NULL OR conditions <> '{}')
);
COMMENT ON TABLE rejection_rule IS 'Which rejections are known noise, and so discarded at once. A part of the registry.';
COMMENT ON COLUMN rejection_rule.rule_id IS 'Names the rule, in rejection.rule_id and on the command line.';
COMMENT ON COLUMN rejection_rule.reason IS 'The reason that a rejection has.';
COMMENT ON COLUMN rejection_rule.queue IS 'The queue that it came from; NULL: any.';
COMMENT ON COLUMN rejection_rule.tenant_id IS 'The tenant that it claims, registered or not; NULL: any.';
COMMENT ON COLUMN rejection_rule.event_type IS 'The event type that it claims; NULL: any.';
COMMENT ON COLUMN rejection_rule.conditions IS 'JSON pointers into the body as it came, and the text, number or boolean (as text) that stands at each.';
COMMENT ON COLUMN rejection_rule.added_at IS 'When the rule was added. It holds for what is rejected after it.';
COMMENT ON COLUMN rejection_rule.retired_at IS 'From when on it matches nothing more; NULL: it is in force.';
COMMENT ON COLUMN rejection_rule.removed_count IS 'How many rejections of it retention has removed; those that are there are counted in rejection.';
COMMENT ON COLUMN rejection_rule.removed_last_at IS 'When the last of those was discarded; NULL: none was removed.';

CREATE FUNCTION rejection_rule_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.rule_id, NEW.reason, NEW.queue, NEW.tenant_id, NEW.event_type, NEW.conditions, NEW.added_at)
      IS DISTINCT FROM (OLD.rule_id, OLD.reason, OLD.queue, OLD.tenant_id, OLD.event_type, OLD.conditions, OLD.added_at)
    OR (OLD.retired_at IS NOT NULL AND NEW.retired_at IS DISTINCT FROM OLD.retired_at) THEN
    RAISE EXCEPTION 'rejection rule % stays what it is, and retired once it was retired', OLD.rule_id
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'rejection_rule_stays',
        HINT = 'add another one: processor rejection rule add';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION rejection_rule_stays() IS 'Refuses to change what a rule says: rejections name it for what it said then.';
CREATE TRIGGER rejection_rule_stays BEFORE UPDATE ON rejection_rule FOR EACH ROW EXECUTE FUNCTION rejection_rule_stays();

CREATE CONSTRAINT TRIGGER rejection_rule_changed AFTER INSERT OR DELETE OR UPDATE OF retired_at ON rejection_rule
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE TRIGGER rejection_rule_truncated AFTER TRUNCATE ON rejection_rule EXECUTE FUNCTION registry_changed();

ALTER TABLE rejection ADD COLUMN rule_id bigint NULL CONSTRAINT rejection_rule_fkey REFERENCES rejection_rule;
COMMENT ON COLUMN rejection.rule_id IS 'The rule by which it was discarded at once; NULL: none. Such a row goes a day after it was closed.';
COMMENT ON COLUMN rejection.status IS 'open: waits for a person. replayed: has become a message or a duplicate since. discarded: a person gave it up, or a rule did (rule_id).';
COMMENT ON COLUMN message.sent_at IS 'When the queue took the message from its producer; where SNS, EventBridge or S3 brought it, when they did.';
COMMENT ON COLUMN duplicate.sent_at IS 'When the queue took this delivery from its producer; where SNS, EventBridge or S3 brought it, when they did.';
COMMENT ON TABLE registry IS 'One row: the version of all that decides verdicts.';
COMMENT ON COLUMN registry.version IS 'Raised once by every transaction that changes what decides verdicts, from psql too.';

-- What S3 and EventBridge say to SNS comes in two envelopes.
ALTER TABLE queue DROP CONSTRAINT queue_unwrap_known, ADD CONSTRAINT queue_unwrap_known CHECK (
  unwrap IN ('none', 'sns', 'eventbridge', 's3', 'sns,eventbridge', 'sns,s3'));
COMMENT ON COLUMN queue.unwrap IS 'The service that puts an envelope around each event, which is taken off: sns, eventbridge or s3, or two of them, the outer first; none: there is no such envelope. NULL: as UNWRAP says.';

DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION rejection_rule_stays() SET search_path = %I, pg_temp', current_schema());
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT SELECT ON rejection_rule TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON rejection_rule TO processor_reader;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_retention') THEN
    -- It counts what it removes, and changes nothing of what a rule says.
    GRANT SELECT, UPDATE (removed_count, removed_last_at) ON rejection_rule TO processor_retention;
  END IF;
END $$;
