-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/server_performance.yaml: make stream NAME=server_performance
CREATE TABLE billing.server_performance (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "time" timestamptz NOT NULL,
    "dates" date,
    "sn" text,
    "metric" text,
    "value" double precision,
    "model" text,
    "usage" text,
    "region_code" text,
    "az_code" text,
    "dc_code" text,
    "room_code" text,
    "pack_code" text,
    "slot_number" text,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX server_performance_time ON billing.server_performance USING brin ("time");
COMMENT ON TABLE billing.server_performance IS
    'Performance of servers: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "查询服务器性能数据 (server performance data)" (zh 4.1.9, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.server_performance.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.server_performance.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.server_performance.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.server_performance.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.server_performance.time IS
    'When the value was measured; sent as "2024-01-08 0:00", without a zone, and read in the source time zone. Unit: instant (UTC).';
COMMENT ON COLUMN billing.server_performance.dates IS
    'Date of the value as sent.';
COMMENT ON COLUMN billing.server_performance.sn IS
    'Serial number of the server.';
COMMENT ON COLUMN billing.server_performance.metric IS
    'What was measured, such as CPUUsagePercent. Unit: code.';
COMMENT ON COLUMN billing.server_performance.value IS
    'The value. Unit: by metric.';
COMMENT ON COLUMN billing.server_performance.model IS
    'Model of the server.';
COMMENT ON COLUMN billing.server_performance.usage IS
    'What the server is used for, such as mgt or mgt-can, joined by |.';
COMMENT ON COLUMN billing.server_performance.region_code IS
    'Region of the server. Unit: code.';
COMMENT ON COLUMN billing.server_performance.az_code IS
    'Availability zone of the server. Unit: code.';
COMMENT ON COLUMN billing.server_performance.dc_code IS
    'Data center of the server. Unit: code.';
COMMENT ON COLUMN billing.server_performance.room_code IS
    'Room of the server. Unit: code.';
COMMENT ON COLUMN billing.server_performance.pack_code IS
    'Rack of the server. Unit: code.';
COMMENT ON COLUMN billing.server_performance.slot_number IS
    'Slot in the rack.';
COMMENT ON COLUMN billing.server_performance.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.server_performance TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.server_performance TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.server_performance;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'server_performance');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'server_performance');
DELETE FROM sdr_sync.window WHERE stream = 'server_performance';
DELETE FROM sdr_sync.job WHERE stream = 'server_performance';
DELETE FROM sdr_sync.partition WHERE stream = 'server_performance';
