-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/measure_units.yaml: make stream NAME=measure_units
CREATE TABLE billing.measure_unit_name (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "language" text,
    "measure_id" integer NOT NULL,
    "measure_name" text,
    "abbreviation" text,
    "measure_type" integer,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.measure_unit_name IS
    'Units of measurement: the list as its newest complete pull had it. Source: BSS "Querying Measurement Units", GET /v2/bases/measurements.';
COMMENT ON COLUMN billing.measure_unit_name.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.measure_unit_name.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.measure_unit_name.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.measure_unit_name.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.measure_unit_name.language IS
    'Language that the names were asked for in, en_US or zh_CN.';
COMMENT ON COLUMN billing.measure_unit_name.measure_id IS
    'Number of the unit, such as 10 for GB. Unit: code.';
COMMENT ON COLUMN billing.measure_unit_name.measure_name IS
    'Name of the unit.';
COMMENT ON COLUMN billing.measure_unit_name.abbreviation IS
    'English abbreviation of the unit.';
COMMENT ON COLUMN billing.measure_unit_name.measure_type IS
    'What it measures, such as 2 for durations, 3 for traffic and 7 for capacity. Unit: code.';
COMMENT ON COLUMN billing.measure_unit_name.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.measure_unit_name TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.measure_unit_name TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.measure_unit_name;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'measure_units');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'measure_units');
DELETE FROM sdr_sync.window WHERE stream = 'measure_units';
DELETE FROM sdr_sync.job WHERE stream = 'measure_units';
DELETE FROM sdr_sync.partition WHERE stream = 'measure_units';
