-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/tenant_resources.yaml: make stream NAME=tenant_resources
CREATE TABLE billing.tenant_resource (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "resource_type" text,
    "body" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.tenant_resource IS
    'Cloud resources of tenants: the list as its newest complete pull had it. Source: ESM API Reference "查询租户云资源 (cloud resources of tenants)" (zh 4.1.10.1 to 4.1.10.4, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.tenant_resource.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.tenant_resource.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.tenant_resource.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.tenant_resource.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.tenant_resource.resource_type IS
    'Kind of resource that was asked for: ECS, EVS, OBS or BMS. Unit: code.';
COMMENT ON COLUMN billing.tenant_resource.body IS
    'The whole answer, which no document describes.';

GRANT SELECT ON billing.tenant_resource TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.tenant_resource TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.tenant_resource;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'tenant_resources');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'tenant_resources');
DELETE FROM sdr_sync.window WHERE stream = 'tenant_resources';
DELETE FROM sdr_sync.job WHERE stream = 'tenant_resources';
DELETE FROM sdr_sync.partition WHERE stream = 'tenant_resources';
