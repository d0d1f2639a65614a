-- The registry: tenants, event types, schemas, queue rules and rejection rules, which decide all verdicts. One version
-- number covers all of them, so that every process can tell whether its copy is current.

CREATE FUNCTION json_path_of(pointer text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN CASE pointer WHEN '' THEN '{}' WHEN '/' THEN ARRAY['']
    ELSE ARRAY(
      SELECT replace(replace(token, '~1', '/'), '~0', '~')
      FROM unnest(string_to_array(substr(pointer, 2), '/')) WITH ORDINALITY AS tokens (token, place)
      ORDER BY place) END;
COMMENT ON FUNCTION json_path_of(text) IS 'The steps of a JSON pointer (RFC 6901), as the operator #> takes them.';
CREATE FUNCTION json_pointer_fits(pointer text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
  -- An array index has one spelling in a JSON pointer. The operator #> would also accept -1, 01 and " 1".
  RETURN char_length(pointer) <= 256 AND pointer ~ '^(/([^~/]|~[01])*)*$' AND pointer !~ '/(\s*[+-]\s*\d+|\s+\d+|0\d+)(/|$)';
COMMENT ON FUNCTION json_pointer_fits(text) IS 'Whether a text is a JSON pointer (RFC 6901) that a meter may use.';

CREATE TABLE tenant (
  tenant_id     text COLLATE "C" NOT NULL CONSTRAINT tenant_pkey PRIMARY KEY,
  name          text NOT NULL,
  status        text NOT NULL DEFAULT 'active',
  created_at    timestamptz NOT NULL DEFAULT now(),
  registered_by text COLLATE "C" NULL,
  CONSTRAINT tenant_id_fit CHECK (char_length(tenant_id) BETWEEN 1 AND 256 AND tenant_id !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT tenant_status_known CHECK (status IN ('active', 'suspended'))
);
CREATE INDEX tenant_registered_idx ON tenant (registered_by, created_at) WHERE registered_by IS NOT NULL;
COMMENT ON TABLE tenant IS 'A customer of the platform; owns its messages.';
COMMENT ON COLUMN tenant.tenant_id IS 'The name by which producers claim the tenant; 1 to 256 characters, no control characters.';
COMMENT ON COLUMN tenant.name IS 'What people call the tenant.';
COMMENT ON COLUMN tenant.status IS 'active: its events are stored. suspended: they are rejected as tenant_suspended, and can be replayed later.';
COMMENT ON COLUMN tenant.created_at IS 'When the tenant was added.';
COMMENT ON COLUMN tenant.registered_by IS 'The queue with the event by which the tenant was registered, at created_at; NULL: a person added it.';

CREATE TABLE event_type (
  event_type  text COLLATE "C" NOT NULL CONSTRAINT event_type_pkey PRIMARY KEY,
  description text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT now(),
  id_scope    text[] NOT NULL DEFAULT '{}',
  compat      text NOT NULL DEFAULT 'none',
  CONSTRAINT event_type_fit CHECK (char_length(event_type) BETWEEN 1 AND 256 AND event_type !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT event_type_id_scope_fit CHECK (
    cardinality(id_scope) <= 4 AND coalesce(array_ndims(id_scope) = 1 AND array_lower(id_scope, 1) = 1, true)
    AND array_position(id_scope, NULL) IS NULL
    AND json_pointer_fits(id_scope[1]) IS NOT false AND json_pointer_fits(id_scope[2]) IS NOT false
    AND json_pointer_fits(id_scope[3]) IS NOT false AND json_pointer_fits(id_scope[4]) IS NOT false),
  CONSTRAINT event_type_compat_known CHECK (compat IN ('none', 'backward', 'forward', 'full'))
);
COMMENT ON TABLE event_type IS 'The name of a kind of event, such as order.created.';
COMMENT ON COLUMN event_type.event_type IS 'The name that producers send; 1 to 256 characters, no control characters.';
COMMENT ON COLUMN event_type.description IS 'What such an event says, for people.';
COMMENT ON COLUMN event_type.created_at IS 'When the event type was first published.';
COMMENT ON COLUMN event_type.id_scope IS 'JSON pointers into the payload: within their values, and this event type, an id is unique. They become part of message.producer. Empty: an id is unique within its tenant and producer.';
COMMENT ON COLUMN event_type.compat IS 'What processor schema publish asks of the next version. backward: it takes every payload that the one before took; forward: it takes none that the one before refused; full: both; none: nothing.';

CREATE TABLE event_schema (
  schema_id    bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT event_schema_pkey PRIMARY KEY,
  event_type   text COLLATE "C" NOT NULL CONSTRAINT event_schema_event_type_fkey REFERENCES event_type,
  tenant_id    text COLLATE "C" NULL CONSTRAINT event_schema_tenant_fkey REFERENCES tenant,
  version      int NOT NULL,
  definition   jsonb NOT NULL,
  published_at timestamptz NOT NULL DEFAULT now(),
  formats      text NOT NULL DEFAULT 'assert',
  CONSTRAINT event_schema_version_key UNIQUE NULLS NOT DISTINCT (event_type, tenant_id, version),
  CONSTRAINT event_schema_typed_key UNIQUE (schema_id, event_type),
  CONSTRAINT event_schema_version_positive CHECK (version >= 1),
  CONSTRAINT event_schema_definition_shape CHECK (jsonb_typeof(definition) IN ('object', 'boolean')),
  CONSTRAINT event_schema_formats_known CHECK (formats IN ('assert', 'annotate'))
);
COMMENT ON TABLE event_schema IS 'One version of the JSON Schema of an event type. A tenant with schemas of its own for an event type is validated by those alone, else by the shared ones.';
COMMENT ON COLUMN event_schema.schema_id IS 'Names this version in message.schema_id.';
COMMENT ON COLUMN event_schema.event_type IS 'The event type whose payloads it describes.';
COMMENT ON COLUMN event_schema.tenant_id IS 'The tenant whose own schema this is; NULL: shared by all tenants.';
COMMENT ON COLUMN event_schema.version IS 'Counts from 1 for each event type and tenant. The highest one holds unless the event names one.';
COMMENT ON COLUMN event_schema.definition IS 'The JSON Schema itself, complete: nothing is ever fetched. Its $schema names the draft, from 4 to 2020-12; without one it is 2020-12. To change a rule publish a new version: stored messages point to the one they were validated by.';
COMMENT ON COLUMN event_schema.published_at IS 'When the version was published.';
COMMENT ON COLUMN event_schema.formats IS 'assert: a value that is not of its "format" breaks the schema. annotate: "format" is a note to people alone.';

CREATE TABLE queue (
  queue             text COLLATE "C" NOT NULL CONSTRAINT queue_pkey PRIMARY KEY,
  unwrap            text COLLATE "C" NULL,
  mapping           jsonb NULL,
  tenants           text[] NULL,
  event_type        text COLLATE "C" NULL,
  registers_tenants boolean NOT NULL DEFAULT false,
  registers_max     int NOT NULL DEFAULT 1000,
  registered_at     timestamptz NOT NULL DEFAULT now(),
  event_types       text[] NULL,
  producers         text[] NULL,
  may_void          boolean NOT NULL DEFAULT true,
  may_correct       boolean NOT NULL DEFAULT true,
  CONSTRAINT queue_name_fit CHECK (char_length(queue) BETWEEN 1 AND 256 AND queue !~ '[\u0001-\u001f\u007f-\u009f]'),
  -- Events of S3 and EventBridge that pass through SNS have two envelopes.
  CONSTRAINT queue_unwrap_known CHECK (unwrap IN ('none', 'sns', 'eventbridge', 's3', 'sns,eventbridge', 'sns,s3')),
  CONSTRAINT queue_mapping_named CHECK (jsonb_typeof(mapping) = 'object' AND mapping <> '{}' AND NOT mapping ?& ARRAY['payload', 'payload_json']
    AND mapping - ARRAY['tenant_id', 'event_type', 'payload', 'payload_json', 'id', 'producer', 'occurred_at', 'schema_version'] = '{}'),
  CONSTRAINT queue_mapping_pointers CHECK (NOT jsonb_path_exists(mapping, '$.* ? (@.type() != "string")')
    AND NOT jsonb_path_exists(mapping, '$.* ? (!(@ like_regex "^(/([^~/]|~[01])*)*$"))')),
  CONSTRAINT queue_tenants_named CHECK (cardinality(tenants) >= 1 AND array_ndims(tenants) = 1 AND array_position(tenants, NULL) IS NULL),
  CONSTRAINT queue_event_type_fit CHECK (char_length(event_type) BETWEEN 1 AND 256 AND event_type !~ '[\u0001-\u001f\u007f-\u009f]'),
  CONSTRAINT queue_registers_max_positive CHECK (registers_max >= 1),
  CONSTRAINT queue_event_types_named CHECK (cardinality(event_types) BETWEEN 1 AND 100
    AND array_ndims(event_types) = 1 AND array_position(event_types, NULL) IS NULL),
  CONSTRAINT queue_producers_named CHECK (cardinality(producers) BETWEEN 1 AND 100
    AND array_ndims(producers) = 1 AND array_position(producers, NULL) IS NULL)
);
COMMENT ON TABLE queue IS 'What is said of a queue (processor queue set); part of the registry. It goes before the setting UNWRAP; what QUEUE_TENANTS binds too, both must allow. A row of which nothing is said any more is kept: messages may have keys by what was said.';
COMMENT ON COLUMN queue.queue IS 'The name of the queue, as in message.queue.';
COMMENT ON COLUMN queue.unwrap IS 'The service that puts an envelope around each event, which is taken off: sns, eventbridge or s3, or two of them, the outer first; none: there is no such envelope. NULL: as UNWRAP says.';
COMMENT ON COLUMN queue.mapping IS 'Where its bodies have what, as an object of names and JSON pointers such as {"tenant_id": "/client_id", "payload": "/message"}. NULL: they are in one of the known formats.';
COMMENT ON COLUMN queue.tenants IS 'The tenants that it may speak for; a body that names another one is rejected. NULL: any.';
COMMENT ON COLUMN queue.event_type IS 'The type of its events, which need not name it, and may name no other; NULL: each names its own.';
COMMENT ON COLUMN queue.registers_tenants IS 'Whether a valid event of a tenant that is not registered registers it.';
COMMENT ON COLUMN queue.registers_max IS 'As many tenants are registered by it within an hour; more have to wait, as rejections.';
COMMENT ON COLUMN queue.registered_at IS 'When something was first said of the queue.';
COMMENT ON COLUMN queue.event_types IS 'The event types that it may carry, besides voids; NULL: any.';
COMMENT ON COLUMN queue.producers IS 'As which producers its events may be sent, and whose messages they may void, as api_key.producers; NULL: any.';
COMMENT ON COLUMN queue.may_void IS 'Whether it may carry events of type void.';
COMMENT ON COLUMN queue.may_correct IS 'Whether it may carry negative amounts where a meter adds them.';

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
  -- Without the reasons that the database finds (id_conflict, unstorable), and without dead_lettered.
  CONSTRAINT rejection_rule_reason_known CHECK (reason IN (
    'not_utf8', 'not_json', 'envelope_invalid', 'unknown_tenant', 'tenant_suspended', 'unknown_event_type',
    'unknown_schema_version', 'schema_violation', 'too_large')),
  CONSTRAINT rejection_rule_texts_fit CHECK (
    char_length(queue) <= 256 AND char_length(tenant_id) <= 256 IS NOT false AND char_length(event_type) <= 256 IS NOT false),
  CONSTRAINT rejection_rule_conditions_shape CHECK (jsonb_typeof(conditions) = 'object' AND octet_length(conditions::text) <= 4096),
  -- A rule with only a reason would discard the events of every sender with a new bug.
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

CREATE TABLE registry (
  version bigint NOT NULL,
  only_row boolean NOT NULL DEFAULT true CONSTRAINT registry_pkey PRIMARY KEY,
  CONSTRAINT registry_one_row CHECK (only_row)
);
COMMENT ON TABLE registry IS 'One row: the version of all that decides verdicts.';
COMMENT ON COLUMN registry.version IS 'Raised once by every transaction that changes what decides verdicts, from psql too.';
COMMENT ON COLUMN registry.only_row IS 'Always true; keeps the table at one row.';
INSERT INTO registry (version) VALUES (1);

-- Deferred to the commit, so that an open psql transaction blocks no other session. SECURITY DEFINER, so that a role
-- that may change tenants needs no privilege on the registry itself. A row that this transaction has already changed
-- carries its transaction id.
CREATE FUNCTION registry_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  UPDATE registry SET version = version + 1 WHERE xmin <> pg_current_xact_id()::xid;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION registry_changed() IS 'Raises registry.version once per transaction, at its commit, when no save is under way.';

CREATE CONSTRAINT TRIGGER tenant_changed AFTER INSERT OR UPDATE OR DELETE ON tenant
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE CONSTRAINT TRIGGER event_type_changed AFTER INSERT OR UPDATE OR DELETE ON event_type
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE CONSTRAINT TRIGGER event_schema_changed AFTER INSERT OR UPDATE OR DELETE ON event_schema
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE CONSTRAINT TRIGGER queue_changed AFTER INSERT OR UPDATE OR DELETE ON queue
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
CREATE CONSTRAINT TRIGGER rejection_rule_changed AFTER INSERT OR DELETE OR UPDATE OF retired_at ON rejection_rule
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_changed();
-- TRUNCATE fires no row triggers.
CREATE TRIGGER tenant_truncated AFTER TRUNCATE ON tenant EXECUTE FUNCTION registry_changed();
CREATE TRIGGER event_type_truncated AFTER TRUNCATE ON event_type EXECUTE FUNCTION registry_changed();
CREATE TRIGGER event_schema_truncated AFTER TRUNCATE ON event_schema EXECUTE FUNCTION registry_changed();
CREATE TRIGGER queue_truncated AFTER TRUNCATE ON queue EXECUTE FUNCTION registry_changed();
CREATE TRIGGER rejection_rule_truncated AFTER TRUNCATE ON rejection_rule EXECUTE FUNCTION registry_changed();

-- Two statements, because the version must be read by a snapshot taken after the lock was granted; this also requires
-- READ COMMITTED. If row-level security hides rows from a writer, the writer finds no earlier outcome and stores a
-- delivery twice. Each new connection checks this with a clear message; the check here is for a grant made while a
-- processor runs. Older code does not know newer rules. It calls a function with fewer arguments, which raises an
-- error as soon as such a rule exists.
CREATE FUNCTION registry_version_held(counts_usage boolean, reads_queues boolean, keeps_rights boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF row_security_active('message'::regclass::oid)
    AND coalesce(pg_has_role(to_regrole('processor_tenant_reader')::oid, 'USAGE'), false) THEN
    RAISE EXCEPTION 'a member of processor_tenant_reader may not save' USING ERRCODE = 'insufficient_privilege';
  END IF;
  LOCK TABLE registry_lock IN ROW SHARE MODE;
  IF NOT counts_usage AND EXISTS (SELECT FROM meter) THEN
    RAISE EXCEPTION 'there are meters, and this processor is too old to count by them'
      USING ERRCODE = 'insufficient_privilege', HINT = 'run the release that the tables are of';
  END IF;
  IF NOT reads_queues AND EXISTS (
    SELECT FROM queue
    WHERE registers_tenants OR num_nonnulls(unwrap, mapping, tenants, event_type) > 0) THEN
    RAISE EXCEPTION 'there are rules of queues, and this processor is too old to read by them'
      USING ERRCODE = 'insufficient_privilege', HINT = 'run the release that the tables are of';
  END IF;
  IF NOT keeps_rights AND EXISTS (
    SELECT FROM queue WHERE NOT (may_void AND may_correct) OR num_nonnulls(event_types, producers) > 0) THEN
    RAISE EXCEPTION 'there are queues without all rights, and this processor is too old to keep to them'
      USING ERRCODE = 'insufficient_privilege', HINT = 'run the release that the tables are of';
  END IF;
  RETURN (SELECT version FROM registry);
END $$;
COMMENT ON FUNCTION registry_version_held(boolean, boolean, boolean) IS 'Keeps the registry from changing until the end of this transaction, and gives its version; counts_usage says that the caller raises totals, reads_queues that it reads by the table queue, keeps_rights that it refuses what a queue may not carry.';
CREATE FUNCTION registry_version_held(counts_usage boolean, reads_queues boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN registry_version_held(counts_usage, reads_queues, false);
END $$;
COMMENT ON FUNCTION registry_version_held(boolean, boolean) IS 'As registry_version_held(counts_usage, reads_queues, false): for code that is older than the rights of a queue.';
CREATE FUNCTION registry_version_held(counts_usage boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN registry_version_held(counts_usage, false);
END $$;
COMMENT ON FUNCTION registry_version_held(boolean) IS 'As registry_version_held(counts_usage, false): for code that is older than the table queue.';
CREATE FUNCTION registry_version_held() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN registry_version_held(false);
END $$;
COMMENT ON FUNCTION registry_version_held() IS 'As registry_version_held(false): for code that is older than meters.';
CREATE FUNCTION registry_lock_key() RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  RETURN 7309453202311081;
END $$;
COMMENT ON FUNCTION registry_lock_key() IS 'Takes registry_lock alone until the end of this transaction, and gives the key of an advisory lock that older releases take after it.';

-- The scope is part of the key that identifies redeliveries and duplicates, so it must not change once there are
-- messages. A message references its schema, so without a schema there are no messages. Checked at the commit, while
-- no other change of the registry is possible.
CREATE FUNCTION event_type_id_scope_stays() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  LOCK TABLE registry_lock IN EXCLUSIVE MODE;
  IF EXISTS (SELECT FROM event_schema WHERE event_schema.event_type = NEW.event_type) THEN
    RAISE EXCEPTION 'the id_scope of event type % stays what it is: messages may be known by it', NEW.event_type
      USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'event_type_id_scope_stays',
        HINT = 'it is chosen before the first schema; publish the event under a new name';
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION event_type_id_scope_stays() IS 'Refuses another id_scope for an event type that has a schema, and so may have messages.';
CREATE CONSTRAINT TRIGGER event_type_id_scope_stays AFTER UPDATE OF id_scope ON event_type
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.id_scope IS DISTINCT FROM NEW.id_scope)
  EXECUTE FUNCTION event_type_id_scope_stays();

-- SECURITY DEFINER, because a processor may add tenants only in this way. A separate lock makes the limit exact. The
-- registry lock is taken last, when no other wait follows: an open psql transaction may hold one of the names and need
-- the registry lock to commit. The wait for such a name is short, and the name is then left out.
CREATE FUNCTION register_tenants(from_queue text, names text[], judged_by bigint) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  rules queue%ROWTYPE;
  room bigint;
  one text;
  is_changed boolean := false;
  lock_timeout_before text := current_setting('lock_timeout');
BEGIN
  LOCK TABLE newcomer_lock IN EXCLUSIVE MODE;
  SELECT * INTO rules FROM queue WHERE queue.queue = from_queue AND queue.registers_tenants;
  IF NOT FOUND OR judged_by IS DISTINCT FROM (SELECT version FROM registry) THEN
    RETURN;
  END IF;
  SELECT rules.registers_max - count(*) INTO room FROM tenant
  WHERE registered_by = from_queue AND created_at > clock_timestamp() - interval '1 hour';
  PERFORM set_config('lock_timeout', '1s', true);
  FOR one IN
    SELECT DISTINCT asked COLLATE "C" AS asked FROM unnest(names) AS asked
    WHERE rules.tenants IS NULL OR asked = ANY (rules.tenants)
    ORDER BY asked
  LOOP
    EXIT WHEN room <= 0;
    BEGIN
      INSERT INTO tenant (tenant_id, name, created_at, registered_by) VALUES (one, one, clock_timestamp(), from_queue)
      ON CONFLICT ON CONSTRAINT tenant_pkey DO NOTHING;
      IF FOUND THEN
        room := room - 1;
        is_changed := true;
        RETURN NEXT one;
      END IF;
    EXCEPTION WHEN lock_not_available THEN NULL;
    END;
  END LOOP;
  PERFORM set_config('lock_timeout', lock_timeout_before, true);
  IF is_changed THEN
    LOCK TABLE registry_lock IN EXCLUSIVE MODE;
    IF judged_by IS DISTINCT FROM (SELECT version FROM registry) THEN
      RAISE EXCEPTION 'the registry has changed meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
  END IF;
END $$;
COMMENT ON FUNCTION register_tenants(text, text[], bigint) IS 'Registers those of the names that are unknown, where the queue may, up to its bound for an hour; gives those that were registered. judged_by is the version of the registry by which their events are valid; by an older one nothing is registered.';
