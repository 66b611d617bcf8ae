-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/network_device_metrics.yaml: make stream NAME=network_device_metrics
CREATE TABLE billing.network_device_metric (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "timestamp" timestamptz NOT NULL,
    "device_ip" text,
    "res_type" text,
    "metric" text,
    "value" double precision,
    "region_id" text,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX network_device_metric_timestamp ON billing.network_device_metric USING brin ("timestamp");
COMMENT ON TABLE billing.network_device_metric IS
    'Metrics of network devices: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "网络设备监控数据查询 (metrics of network devices)" (zh 4.1.13, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.network_device_metric.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.network_device_metric.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.network_device_metric.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.network_device_metric.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.network_device_metric.timestamp IS
    'When the metric was measured. Unit: instant (UTC).';
COMMENT ON COLUMN billing.network_device_metric.device_ip IS
    'Management IP address of the device.';
COMMENT ON COLUMN billing.network_device_metric.res_type IS
    'Type of the resource, a number. Unit: code.';
COMMENT ON COLUMN billing.network_device_metric.metric IS
    'What was measured, a number: 59, 60, 14, 18, 101, 102, 61 or 52; their meanings are documented nowhere. Unit: code.';
COMMENT ON COLUMN billing.network_device_metric.value IS
    'The value. Unit: by metric.';
COMMENT ON COLUMN billing.network_device_metric.region_id IS
    'Region of the device. Unit: code.';
COMMENT ON COLUMN billing.network_device_metric.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.network_device_metric TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.network_device_metric TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.network_device_metric;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'network_device_metrics');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'network_device_metrics');
DELETE FROM sdr_sync.window WHERE stream = 'network_device_metrics';
DELETE FROM sdr_sync.job WHERE stream = 'network_device_metrics';
DELETE FROM sdr_sync.partition WHERE stream = 'network_device_metrics';
