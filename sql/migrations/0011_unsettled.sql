-- Outcomes of RabbitMQ's messages, until their acknowledgement is known to have arrived. Messages may be equal in everything,
-- so which of them is handed over once more is told by counting alone.

CREATE TABLE unsettled (
  queue       text COLLATE "C" NOT NULL,
  delivery_id text COLLATE "C" NOT NULL,
  noted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT unsettled_pkey PRIMARY KEY (queue, delivery_id)
);
COMMENT ON TABLE unsettled IS 'A delivery of RabbitMQ that has its outcome, and whose acknowledgement is not known to have arrived there. One redelivery of an equal message takes it; it goes with the acknowledgement, or when its key may be forgotten.';
COMMENT ON COLUMN unsettled.queue IS 'The queue that handed it over.';
COMMENT ON COLUMN unsettled.delivery_id IS 'The hand-over that is to be acknowledged; all but the last twelve digits are alike in equal messages.';
COMMENT ON COLUMN unsettled.noted_at IS 'When its outcome was written; earlier by what others wait where its connection had ended by then. Younger ones may be acknowledged at this moment, and are left alone.';

DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    -- The update moves a row to the hand-over that takes it.
    GRANT SELECT, INSERT, UPDATE, DELETE ON unsettled TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON unsettled TO processor_reader;
  END IF;
END $$;
