-- What one sender's rejections take is bounded: of each holder it is known what its rejections keep, and beyond a limit
-- a rejection keeps the head of its body, with its length and digest. The account is made by triggers, so that it is
-- right whoever closes, removes or erases rows.

ALTER TABLE rejection
  ADD COLUMN holder text COLLATE "C" NULL,
  ADD COLUMN kept_bytes bigint NULL,
  ADD COLUMN body_bytes bigint NULL,
  ADD COLUMN body_sha256 bytea NULL,
  -- Not validated: the columns are new, and to read a large table takes long.
  ADD CONSTRAINT rejection_holder_sized CHECK ((holder IS NULL) = (kept_bytes IS NULL)) NOT VALID,
  ADD CONSTRAINT rejection_body_cut CHECK ((body_bytes IS NULL) = (body_sha256 IS NULL)) NOT VALID;
COMMENT ON COLUMN rejection.holder IS 'On whose account the row is: a proven tenant, else a registered tenant that it claims with its sender or queue, else these alone. NULL: from before accounts were kept.';
COMMENT ON COLUMN rejection.kept_bytes IS 'What body, attributes and detail had when it was inserted; NULL: not counted.';
COMMENT ON COLUMN rejection.body_bytes IS 'How long the body was of which only the head is kept, since its holder had no room; NULL: the body is whole.';
COMMENT ON COLUMN rejection.body_sha256 IS 'The SHA-256 of that whole body; NULL: the body is whole.';
COMMENT ON COLUMN rejection.body IS 'The body, byte for byte; where body_bytes is given its head alone.';

CREATE TABLE rejection_room (
  holder    text COLLATE "C" NOT NULL,
  slot      int NOT NULL,
  bytes     bigint NOT NULL,
  row_count bigint NOT NULL,
  CONSTRAINT rejection_room_pkey PRIMARY KEY (holder, slot)
);
COMMENT ON TABLE rejection_room IS 'What the rejections that are open, or discarded by a rule, keep for each holder: the sum over its slots. Written by triggers of rejection alone.';
COMMENT ON COLUMN rejection_room.holder IS 'The holder, as rejection has it.';
COMMENT ON COLUMN rejection_room.slot IS 'Each writer has one, or all would wait for each other; the value of one alone means nothing.';
COMMENT ON COLUMN rejection_room.bytes IS 'Bytes kept.';
COMMENT ON COLUMN rejection_room.row_count IS 'Rows kept.';

CREATE FUNCTION rejection_room_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    DELETE FROM rejection_room;
    RETURN NULL;
  END IF;
  -- Each statement sees only what its event gives it a table of.
  IF TG_OP = 'INSERT' THEN
    INSERT INTO rejection_room AS known (holder, slot, bytes, row_count)
    SELECT holder, mod(pg_backend_pid(), 16), sum(kept_bytes), count(*) FROM new_rows
    WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
    GROUP BY holder ORDER BY holder
    ON CONFLICT ON CONSTRAINT rejection_room_pkey DO UPDATE
    SET bytes = known.bytes + excluded.bytes, row_count = known.row_count + excluded.row_count;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO rejection_room AS known (holder, slot, bytes, row_count)
    SELECT holder, mod(pg_backend_pid(), 16), -sum(kept_bytes), -count(*) FROM old_rows
    WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
    GROUP BY holder ORDER BY holder
    ON CONFLICT ON CONSTRAINT rejection_room_pkey DO UPDATE
    SET bytes = known.bytes + excluded.bytes, row_count = known.row_count + excluded.row_count;
  ELSE
    INSERT INTO rejection_room AS known (holder, slot, bytes, row_count)
    SELECT holder, mod(pg_backend_pid(), 16), sum(sign * kept_bytes), sum(sign)
    FROM (
      SELECT holder, kept_bytes, 1 AS sign FROM new_rows
      WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
      UNION ALL
      SELECT holder, kept_bytes, -1 FROM old_rows
      WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
    ) AS changed
    GROUP BY holder HAVING sum(sign * kept_bytes) <> 0 OR sum(sign) <> 0 ORDER BY holder
    ON CONFLICT ON CONSTRAINT rejection_room_pkey DO UPDATE
    SET bytes = known.bytes + excluded.bytes, row_count = known.row_count + excluded.row_count;
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION rejection_room_changed() IS 'Keeps rejection_room what the rows of rejection say.';
CREATE TRIGGER rejection_room_inserted AFTER INSERT ON rejection
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION rejection_room_changed();
CREATE TRIGGER rejection_room_updated AFTER UPDATE ON rejection
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION rejection_room_changed();
CREATE TRIGGER rejection_room_deleted AFTER DELETE ON rejection
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION rejection_room_changed();
CREATE TRIGGER rejection_room_truncated AFTER TRUNCATE ON rejection EXECUTE FUNCTION rejection_room_changed();

DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION rejection_room_changed() SET search_path = %I, pg_temp', current_schema());
  REVOKE ALL ON FUNCTION rejection_room_changed() FROM PUBLIC;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT SELECT ON rejection_room TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON rejection_room TO processor_reader;
  END IF;
END $$;
