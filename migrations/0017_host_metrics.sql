-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/host_metrics.yaml: make stream NAME=host_metrics
CREATE TABLE billing.host_metric (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "time_stamp" timestamptz NOT NULL,
    "host_id" text,
    "monitor_item" text,
    "metrics_name" text,
    "data_item" text,
    "operator" text,
    "metrics_value" double precision,
    "unit" text,
    "region_id" text,
    "region_name" text,
    "region_name_en" text,
    "az_id" text,
    "az_name" text,
    "az_name_en" text,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX host_metric_time_stamp ON billing.host_metric USING brin ("time_stamp");
COMMENT ON TABLE billing.host_metric IS
    'Metrics of hosts: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "Querying Host Metric Data" (en 4.1.7, issue 01, 2025-10-30; zh 4.1.8, issue 06, 2025-03-30).';
COMMENT ON COLUMN billing.host_metric.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.host_metric.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.host_metric.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.host_metric.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.host_metric.time_stamp IS
    'When the metric was measured. Unit: instant (UTC).';
COMMENT ON COLUMN billing.host_metric.host_id IS
    'Host that was measured.';
COMMENT ON COLUMN billing.host_metric.monitor_item IS
    'What is monitored, such as memory. Unit: code.';
COMMENT ON COLUMN billing.host_metric.metrics_name IS
    'Name of the metric; the English document lists 19 of them.';
COMMENT ON COLUMN billing.host_metric.data_item IS
    'Which value of it, such as usage. Unit: code.';
COMMENT ON COLUMN billing.host_metric.operator IS
    'How values were put together, such as AVG. Unit: code.';
COMMENT ON COLUMN billing.host_metric.metrics_value IS
    'The value. The table calls it metrics_value, the samples value. Unit: unit.';
COMMENT ON COLUMN billing.host_metric.unit IS
    'Unit of the value; a per cent sign may come with a backslash.';
COMMENT ON COLUMN billing.host_metric.region_id IS
    'Region of the host. Unit: code.';
COMMENT ON COLUMN billing.host_metric.region_name IS
    'Name of the region.';
COMMENT ON COLUMN billing.host_metric.region_name_en IS
    'English name of the region.';
COMMENT ON COLUMN billing.host_metric.az_id IS
    'Availability zone of the host.';
COMMENT ON COLUMN billing.host_metric.az_name IS
    'Name of the availability zone.';
COMMENT ON COLUMN billing.host_metric.az_name_en IS
    'English name of the availability zone.';
COMMENT ON COLUMN billing.host_metric.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.host_metric TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.host_metric TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.host_metric;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'host_metrics');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'host_metrics');
DELETE FROM sdr_sync.window WHERE stream = 'host_metrics';
DELETE FROM sdr_sync.job WHERE stream = 'host_metrics';
DELETE FROM sdr_sync.partition WHERE stream = 'host_metrics';
