-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/cloud_service_capacity.yaml: make stream NAME=cloud_service_capacity
CREATE TABLE billing.cloud_service_capacity (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "asked_service_type" text,
    "service_type" text,
    "timestamp" timestamptz NOT NULL,
    "region" text,
    "az_id" text,
    "az_name" text,
    "az_name_en" text,
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
CREATE INDEX cloud_service_capacity_timestamp ON billing.cloud_service_capacity USING brin ("timestamp");
COMMENT ON TABLE billing.cloud_service_capacity IS
    'Capacity of cloud services: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "Querying Capacities of Cloud Service Resources" (en 4.1.2.1 to 4.1.2.10, issue 01, 2025-10-30; zh 4.1.3.1 to 4.1.3.10, issue 06, 2025-03-30).';
COMMENT ON COLUMN billing.cloud_service_capacity.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.cloud_service_capacity.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.cloud_service_capacity.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.cloud_service_capacity.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.cloud_service_capacity.asked_service_type IS
    'Service that was asked for, such as ECS_VM; the records spell it in ways of their own. Unit: code.';
COMMENT ON COLUMN billing.cloud_service_capacity.service_type IS
    'Service as the record says it, such as ecs-vm, BMS, dcc or sfs. Unit: code.';
COMMENT ON COLUMN billing.cloud_service_capacity.timestamp IS
    'When the capacity was measured. Unit: instant (UTC).';
COMMENT ON COLUMN billing.cloud_service_capacity.region IS
    'Region of the resources; the tables say its name, the samples give its code.';
COMMENT ON COLUMN billing.cloud_service_capacity.az_id IS
    'Availability zone.';
COMMENT ON COLUMN billing.cloud_service_capacity.az_name IS
    'Name of the availability zone.';
COMMENT ON COLUMN billing.cloud_service_capacity.az_name_en IS
    'English name of the availability zone.';
COMMENT ON COLUMN billing.cloud_service_capacity.zone_type IS
    'Zone of the resource, such as MANAGE, POD or KVM_POD; cases differ between services. Unit: code.';
COMMENT ON COLUMN billing.cloud_service_capacity.metric_type IS
    'What the row counts. Unit: code.';
COMMENT ON COLUMN billing.cloud_service_capacity.resource_type IS
    'Resource type; empty in the samples.';
COMMENT ON COLUMN billing.cloud_service_capacity.total IS
    'Whole amount. The tables call a field of this name the number of records, which is the envelope''s. Unit: by service: pieces (ECS_VM, BMS, EIP, RDS, DeH, VPN), TB (EVS, OBS, SFS), cores or TB (DCC).';
COMMENT ON COLUMN billing.cloud_service_capacity.allocated IS
    'Amount that is allocated. Unit: by service: pieces (ECS_VM, BMS, EIP, RDS, DeH, VPN), TB (EVS, OBS, SFS), cores or TB (DCC).';
COMMENT ON COLUMN billing.cloud_service_capacity.available IS
    'Amount that can still be allocated. Unit: by service: pieces (ECS_VM, BMS, EIP, RDS, DeH, VPN), TB (EVS, OBS, SFS), cores or TB (DCC).';
COMMENT ON COLUMN billing.cloud_service_capacity.used IS
    'Amount in use. Unit: by service: pieces (ECS_VM, BMS, EIP, RDS, DeH, VPN), TB (EVS, OBS, SFS), cores or TB (DCC).';
COMMENT ON COLUMN billing.cloud_service_capacity.free IS
    'Amount not in use. Unit: by service: pieces (ECS_VM, BMS, EIP, RDS, DeH, VPN), TB (EVS, OBS, SFS), cores or TB (DCC).';
COMMENT ON COLUMN billing.cloud_service_capacity.used_ratio IS
    'Share in use, 1 is all. As sent: a sample has 17 decimals, more than a decimal here holds without rounding.';
COMMENT ON COLUMN billing.cloud_service_capacity.allocated_ratio IS
    'Share allocated, 1 is all. As sent, like used_ratio.';
COMMENT ON COLUMN billing.cloud_service_capacity.resource_count IS
    'Number of resources.';
COMMENT ON COLUMN billing.cloud_service_capacity.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.cloud_service_capacity TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.cloud_service_capacity TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.cloud_service_capacity;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'cloud_service_capacity');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'cloud_service_capacity');
DELETE FROM sdr_sync.window WHERE stream = 'cloud_service_capacity';
DELETE FROM sdr_sync.job WHERE stream = 'cloud_service_capacity';
DELETE FROM sdr_sync.partition WHERE stream = 'cloud_service_capacity';
