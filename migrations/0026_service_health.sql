-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/service_health.yaml: make stream NAME=service_health
CREATE TABLE billing.service_health (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "share_id" text,
    "body" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.service_health IS
    'Health of services: the list as its newest complete pull had it. Source: ESM API Reference "查询服务健康状态 (service health)" (zh 4.1.1, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.service_health.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.service_health.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.service_health.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.service_health.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.service_health.share_id IS
    'Shared screen that was asked for.';
COMMENT ON COLUMN billing.service_health.body IS
    'The whole answer, which no document describes.';

GRANT SELECT ON billing.service_health TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.service_health TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.service_health;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'service_health');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'service_health');
DELETE FROM sdr_sync.window WHERE stream = 'service_health';
DELETE FROM sdr_sync.job WHERE stream = 'service_health';
DELETE FROM sdr_sync.partition WHERE stream = 'service_health';
