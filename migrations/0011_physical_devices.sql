-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/physical_devices.yaml: make stream NAME=physical_devices
CREATE TABLE billing.physical_device (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "device_id" text NOT NULL,
    "name" text,
    "device_type" text,
    "running_status" text,
    "model" text,
    "management_ip" text,
    "os" text,
    "region" text,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.physical_device IS
    'Physical devices: the list as its newest complete pull had it. Source: ESM API Reference "Querying Physical Device Details" (en 4.1.4, issue 01, 2025-10-30; zh 4.1.5, issue 06, 2025-03-30).';
COMMENT ON COLUMN billing.physical_device.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.physical_device.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.physical_device.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.physical_device.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.physical_device.device_id IS
    'Id of the device; for a server the host id that its metrics are asked by.';
COMMENT ON COLUMN billing.physical_device.name IS
    'Name of the device.';
COMMENT ON COLUMN billing.physical_device.device_type IS
    'Type such as server, switch, firewall or router; the tables call it a number. Unit: code.';
COMMENT ON COLUMN billing.physical_device.running_status IS
    'Whether the device runs. Unit: code.';
COMMENT ON COLUMN billing.physical_device.model IS
    'Model of the device.';
COMMENT ON COLUMN billing.physical_device.management_ip IS
    'IP address of the management port.';
COMMENT ON COLUMN billing.physical_device.os IS
    'Operating system of the device.';
COMMENT ON COLUMN billing.physical_device.region IS
    'Region of the device. Unit: code.';
COMMENT ON COLUMN billing.physical_device.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.physical_device TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.physical_device TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.physical_device;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'physical_devices');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'physical_devices');
DELETE FROM sdr_sync.window WHERE stream = 'physical_devices';
DELETE FROM sdr_sync.job WHERE stream = 'physical_devices';
DELETE FROM sdr_sync.partition WHERE stream = 'physical_devices';
