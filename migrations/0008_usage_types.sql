-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/usage_types.yaml: make stream NAME=usage_types
CREATE TABLE billing.usage_type_name (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "language" text,
    "code" text NOT NULL,
    "name" text,
    "resource_type_code" text NOT NULL,
    "service_type_code" text NOT NULL,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.usage_type_name IS
    'Names of accumulate factors: the list as its newest complete pull had it. Source: BSS "Querying Usage Types" (2025-11-27), GET /v2/products/usage-types.';
COMMENT ON COLUMN billing.usage_type_name.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.usage_type_name.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.usage_type_name.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.usage_type_name.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.usage_type_name.language IS
    'Language that the names were asked for in, en_US or zh_CN.';
COMMENT ON COLUMN billing.usage_type_name.code IS
    'Usage type, which is what accumulate_factor_name of a metering record says; compare without case. Unit: code.';
COMMENT ON COLUMN billing.usage_type_name.name IS
    'Name of the usage type.';
COMMENT ON COLUMN billing.usage_type_name.resource_type_code IS
    'Resource type that is metered by it; one code stands under several. Unit: code.';
COMMENT ON COLUMN billing.usage_type_name.service_type_code IS
    'Cloud service of that resource type. Unit: code.';
COMMENT ON COLUMN billing.usage_type_name.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.usage_type_name TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.usage_type_name TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.usage_type_name;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'usage_types');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'usage_types');
DELETE FROM sdr_sync.window WHERE stream = 'usage_types';
DELETE FROM sdr_sync.job WHERE stream = 'usage_types';
DELETE FROM sdr_sync.partition WHERE stream = 'usage_types';
