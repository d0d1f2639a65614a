-- A schema may be of any draft from 4 to 2020-12, and may take formats as notes; an event type may promise that its
-- next versions stay compatible with the one before.

ALTER TABLE event_schema
  ADD COLUMN formats text NOT NULL DEFAULT 'assert',
  ADD CONSTRAINT event_schema_formats_known CHECK (formats IN ('assert', 'annotate'));
COMMENT ON COLUMN event_schema.formats IS 'assert: a value that is not of its "format" breaks the schema. annotate: "format" is a note to people alone.';
COMMENT ON TABLE event_schema IS 'One version of the JSON Schema of an event type. A tenant with schemas of its own for an event type is validated by those alone, else by the shared ones.';
COMMENT ON COLUMN event_schema.definition IS 'The JSON Schema itself, complete: nothing is ever fetched. Its $schema names the draft, from 4 to 2020-12; without one it is 2020-12. To change a rule publish a new version: stored messages point to the one they were validated by.';

ALTER TABLE event_type
  ADD COLUMN compat text NOT NULL DEFAULT 'none',
  ADD CONSTRAINT event_type_compat_known CHECK (compat IN ('none', 'backward', 'forward', 'full'));
COMMENT ON COLUMN event_type.compat IS 'What processor schema publish asks of the next version. backward: it takes every payload that the one before took; forward: it takes none that the one before refused; full: both; none: nothing.';
