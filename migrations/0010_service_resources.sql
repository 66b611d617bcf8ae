-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/service_resources.yaml: make stream NAME=service_resources
CREATE TABLE billing.service_resource (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "service_type_code" text,
    "language" text,
    "resource_type_code" text NOT NULL,
    "product_owner_service" text,
    "name" text,
    "description" text,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.service_resource IS
    'Resource types of each cloud service: the list as its newest complete pull had it. Source: BSS "Querying Resources by Cloud Service Type" (2024-05-31).';
COMMENT ON COLUMN billing.service_resource.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.service_resource.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.service_resource.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.service_resource.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.service_resource.service_type_code IS
    'Cloud service that was asked for; join on it. Unit: code.';
COMMENT ON COLUMN billing.service_resource.language IS
    'Language that the names were asked for in, en_US or zh_CN.';
COMMENT ON COLUMN billing.service_resource.resource_type_code IS
    'Resource type that the service uses, such as hws.resource.type.vm. Unit: code.';
COMMENT ON COLUMN billing.service_resource.product_owner_service IS
    'Service that the resource type belongs to, often another one than was asked for. Unit: code.';
COMMENT ON COLUMN billing.service_resource.name IS
    'Name of the resource type.';
COMMENT ON COLUMN billing.service_resource.description IS
    'Description of the resource type.';
COMMENT ON COLUMN billing.service_resource.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.service_resource TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.service_resource TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.service_resource;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'service_resources');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'service_resources');
DELETE FROM sdr_sync.window WHERE stream = 'service_resources';
DELETE FROM sdr_sync.job WHERE stream = 'service_resources';
DELETE FROM sdr_sync.partition WHERE stream = 'service_resources';
