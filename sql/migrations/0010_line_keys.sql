-- The key of a handed-over line never stands for other content: it is made by chance when the line is written, and
-- kept with it. Where lines were handed over last is noted, so that a restored database does not go on by itself.

-- Rather fail than make others wait for long, and be run again.
SET LOCAL lock_timeout = '10s';

ALTER TABLE usage_line ADD COLUMN line_key text COLLATE "C" NULL;
COMMENT ON COLUMN usage_line.line_key IS 'The key by which the sink knows the line, made by chance when the line is written. NULL: a line of an older release, whose key is made of tenant, meter, window, group and revision.';
ALTER TABLE usage_line ADD CONSTRAINT usage_line_key_fit CHECK (line_key ~ '^[0-9a-f]{64}$');
CREATE UNIQUE INDEX usage_line_key_idx ON usage_line (line_key) WHERE line_key IS NOT NULL;

CREATE TABLE usage_place (
  is_current boolean NOT NULL DEFAULT true CONSTRAINT usage_place_pkey PRIMARY KEY,
  place      text NOT NULL,
  reason     text NOT NULL,
  noted_at   timestamptz NOT NULL DEFAULT now(),
  first_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT usage_place_single CHECK (is_current),
  CONSTRAINT usage_place_reason_known CHECK (reason IN ('first', 'reconciled', 'nothing_lost'))
);
COMMENT ON TABLE usage_place IS 'The database from which lines are handed over, in one row. In another place (restored, copied, failed over) processor dispatch hands nothing over before processor usage reconcile.';
COMMENT ON COLUMN usage_place.is_current IS 'True: there is one row.';
COMMENT ON COLUMN usage_place.place IS 'What usage_place_now() gave when it was noted.';
COMMENT ON COLUMN usage_place.reason IS 'first: by the first dispatch. reconciled: after a comparison with the sink. nothing_lost: a person said so.';
COMMENT ON COLUMN usage_place.noted_at IS 'When it was noted.';
COMMENT ON COLUMN usage_place.first_at IS 'When lines were handed over for the first time: a tenant or meter that was added before has no earlier namesake at the sink. -infinity: nobody knows.';

CREATE FUNCTION usage_place_now() RETURNS text LANGUAGE sql STABLE
  -- A restore to a point in time and a promotion begin a timeline; a dump is restored as other tables. Each of the
  -- functions is for everybody.
  RETURN CASE WHEN NOT pg_is_in_recovery() THEN format('server %s, timeline %s, database %s, table %s',
    (SELECT system_identifier FROM pg_control_system()),
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    'usage_line'::regclass::oid) END;
COMMENT ON FUNCTION usage_place_now() IS 'Which server, timeline, database and table these are: another one after a restore, a copy or a failover; NULL on a standby. Not told apart: a copied disk, and rows that are loaded into the same tables.';

-- Whoever handed over before did so from here.
INSERT INTO usage_place (place, reason, first_at)
SELECT usage_place_now(), 'first', '-infinity' WHERE EXISTS (SELECT FROM usage_batch);

CREATE FUNCTION has_pulse_lines(one meter) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (one).aggregation = 'sum' AND (one).value_pointer = '/used_amount' AND cardinality((one).group_names) = 2
    AND (one).group_names @> '{product_sku,use_unity}';
COMMENT ON FUNCTION has_pulse_lines(meter) IS 'Whether lines of a meter have the shape of the pulse, which does not name the meter.';

CREATE FUNCTION pulse_lines_stay_clear() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  other text;
BEGIN
  -- Two of them can't be told apart by the sink, so no message may be counted by both.
  SELECT rival.meter INTO other
  FROM meter AS this
  JOIN meter AS rival ON rival.meter_id <> this.meter_id AND has_pulse_lines(rival)
    AND (this.tenant_id IS NULL OR rival.tenant_id IS NULL OR rival.tenant_id = this.tenant_id)
    AND (rival.is_handed_over OR EXISTS (
      SELECT FROM usage_line
      WHERE usage_line.meter_id = rival.meter_id AND (batch_id IS NOT NULL OR handed_over_at IS NOT NULL)))
  WHERE this.meter_id = NEW.meter_id AND this.is_handed_over AND has_pulse_lines(this)
    AND (
      -- Both count what is stored at one moment; one that is retired by this transaction counts nothing from now on.
      (this.active_from < CASE rival.status WHEN 'active' THEN 'infinity' ELSE coalesce(rival.retired_at, '-infinity') END
        AND rival.active_from < CASE this.status WHEN 'active' THEN 'infinity' ELSE coalesce(this.retired_at, '-infinity') END)
      -- Or a rebuild made one count what was stored while the other one did.
      OR (this.active_from > rival.active_from
        AND EXISTS (SELECT FROM usage_rebuild WHERE usage_rebuild.meter_id = this.meter_id))
      OR (rival.active_from > this.active_from
        AND EXISTS (SELECT FROM usage_rebuild WHERE usage_rebuild.meter_id = rival.meter_id)))
  ORDER BY rival.meter_id
  LIMIT 1;
  IF other IS NOT NULL THEN
    RAISE EXCEPTION 'the lines of this meter would look like those of meter %, and count the same messages again', other
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'meter_pulse_lines_clear',
        HINT = 'lines of a sum of /used_amount by product_sku and use_unity do not name their meter: retire the other one first, do not hand this one over, or name its groups otherwise; a rebuild is for the one that was active first';
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION pulse_lines_stay_clear() IS 'Refuses two handed-over meters that count the same messages of a tenant in lines that look alike.';
-- By name it comes after meter_begins_or_ends, which has the lock and the moments by then.
CREATE CONSTRAINT TRIGGER meter_pulse_lines_clear AFTER INSERT OR UPDATE OF is_handed_over ON meter
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.is_handed_over) EXECUTE FUNCTION pulse_lines_stay_clear();
CREATE CONSTRAINT TRIGGER usage_rebuild_pulse_lines_clear AFTER INSERT OR UPDATE ON usage_rebuild
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pulse_lines_stay_clear();

DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION pulse_lines_stay_clear() SET search_path = %I, pg_temp', current_schema());
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_biller') THEN
    GRANT SELECT, INSERT, UPDATE ON usage_place TO processor_biller;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON usage_place TO processor_reader;
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION pulse_lines_stay_clear() FROM PUBLIC;
