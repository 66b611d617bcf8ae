-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/vm_performance.yaml: make stream NAME=vm_performance
CREATE TABLE billing.vm_performance (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "timestamp" timestamptz NOT NULL,
    "instance_id" text,
    "metric_name" text,
    "metric_value" double precision,
    "metric_unit" text,
    "tenant_name" text,
    "region_id" text,
    "service" text,
    "namespace" text,
    "source_service" text,
    "source_type" text,
    "source_tag" text,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX vm_performance_timestamp ON billing.vm_performance USING brin ("timestamp");
COMMENT ON TABLE billing.vm_performance IS
    'Performance of virtual machines: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "虚拟机性能数据查询 (performance of virtual machines)" (zh 4.1.15, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.vm_performance.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.vm_performance.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.vm_performance.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.vm_performance.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.vm_performance.timestamp IS
    'When the metric was measured. Unit: instant (UTC).';
COMMENT ON COLUMN billing.vm_performance.instance_id IS
    'Virtual machine that was measured.';
COMMENT ON COLUMN billing.vm_performance.metric_name IS
    'What was measured, such as cpu_usage. Unit: code.';
COMMENT ON COLUMN billing.vm_performance.metric_value IS
    'The value. Unit: metric_unit.';
COMMENT ON COLUMN billing.vm_performance.metric_unit IS
    'Unit of the value.';
COMMENT ON COLUMN billing.vm_performance.tenant_name IS
    'Name of the tenant.';
COMMENT ON COLUMN billing.vm_performance.region_id IS
    'Region of the virtual machine. Unit: code.';
COMMENT ON COLUMN billing.vm_performance.service IS
    'Cloud service, such as ECS. Unit: code.';
COMMENT ON COLUMN billing.vm_performance.namespace IS
    'Namespace of the metric. Unit: code.';
COMMENT ON COLUMN billing.vm_performance.source_service IS
    'Service that measured it, such as CES. Unit: code.';
COMMENT ON COLUMN billing.vm_performance.source_type IS
    'Kind of measurement, such as TenantMon. Unit: code.';
COMMENT ON COLUMN billing.vm_performance.source_tag IS
    'Where it was measured, such as CN_NORTH_7_ECS. Unit: code.';
COMMENT ON COLUMN billing.vm_performance.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.vm_performance TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.vm_performance TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.vm_performance;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'vm_performance');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'vm_performance');
DELETE FROM sdr_sync.window WHERE stream = 'vm_performance';
DELETE FROM sdr_sync.job WHERE stream = 'vm_performance';
DELETE FROM sdr_sync.partition WHERE stream = 'vm_performance';
