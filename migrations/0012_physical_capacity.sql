-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/physical_capacity.yaml: make stream NAME=physical_capacity
CREATE TABLE billing.physical_capacity (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "timestamp" timestamptz NOT NULL,
    "region" text,
    "device_type" text,
    "service_type" text,
    "zone_type" text,
    "metric_type" text,
    "resource_type" text,
    "total" double precision,
    "allocated" double precision,
    "available" double precision,
    "used" double precision,
    "free" double precision,
    "used_ratio" text,
    "allocated_ratio" text,
    "resource_count" double precision,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX physical_capacity_timestamp ON billing.physical_capacity USING brin ("timestamp");
COMMENT ON TABLE billing.physical_capacity IS
    'Capacity of physical resources: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "Querying Capacities of Physical Resources" (en 4.1.1, issue 01, 2025-10-30; zh 4.1.2, issue 06, 2025-03-30).';
COMMENT ON COLUMN billing.physical_capacity.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.physical_capacity.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.physical_capacity.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.physical_capacity.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.physical_capacity.timestamp IS
    'When the capacity was measured. Unit: instant (UTC).';
COMMENT ON COLUMN billing.physical_capacity.region IS
    'Region of the resources; the tables say its name, the samples give its code.';
COMMENT ON COLUMN billing.physical_capacity.device_type IS
    'ECS for compute, EVS for storage. The samples of compute have service_type instead. Unit: code.';
COMMENT ON COLUMN billing.physical_capacity.service_type IS
    'ECS in the samples of compute; no table names it. Unit: code.';
COMMENT ON COLUMN billing.physical_capacity.zone_type IS
    'Zone of the resource, such as MANAGE, POD or KVM_POD; cases differ between services. Unit: code.';
COMMENT ON COLUMN billing.physical_capacity.metric_type IS
    'What the row counts, such as vCpu, memory or a disk type; it differs by type of device. Unit: code.';
COMMENT ON COLUMN billing.physical_capacity.resource_type IS
    'Model of the physical servers, such as C6xLarge or SAS.';
COMMENT ON COLUMN billing.physical_capacity.total IS
    'Whole amount. The tables call a field of this name the number of records, which is the envelope''s. Unit: cores for CPU; TB for memory and storage.';
COMMENT ON COLUMN billing.physical_capacity.allocated IS
    'Amount that is allocated. Unit: cores for CPU; TB for memory and storage.';
COMMENT ON COLUMN billing.physical_capacity.available IS
    'Amount that can still be allocated. Unit: cores for CPU; TB for memory and storage.';
COMMENT ON COLUMN billing.physical_capacity.used IS
    'Amount in use. Unit: cores for CPU; TB for memory and storage.';
COMMENT ON COLUMN billing.physical_capacity.free IS
    'Amount not in use. Unit: cores for CPU; TB for memory and storage.';
COMMENT ON COLUMN billing.physical_capacity.used_ratio IS
    'Share in use, 1 is all. As sent: a sample has 17 decimals, more than a decimal here holds without rounding.';
COMMENT ON COLUMN billing.physical_capacity.allocated_ratio IS
    'Share allocated, 1 is all. As sent, like used_ratio.';
COMMENT ON COLUMN billing.physical_capacity.resource_count IS
    'Number of resources.';
COMMENT ON COLUMN billing.physical_capacity.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.physical_capacity TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.physical_capacity TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.physical_capacity;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'physical_capacity');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'physical_capacity');
DELETE FROM sdr_sync.window WHERE stream = 'physical_capacity';
DELETE FROM sdr_sync.job WHERE stream = 'physical_capacity';
DELETE FROM sdr_sync.partition WHERE stream = 'physical_capacity';
