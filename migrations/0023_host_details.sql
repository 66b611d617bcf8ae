-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/host_details.yaml: make stream NAME=host_details
CREATE TABLE billing.host_detail (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "host_id" text,
    "host_name" text,
    "sn" text,
    "region_id" text,
    "az_code" text,
    "dc_code" text,
    "room_code" text,
    "rack_code" text,
    "pod_code" text,
    "cluster_name" text,
    "manufacturer" text,
    "kernel" text,
    "cpu_arch" text,
    "cpu" text,
    "memory" text,
    "disk" text,
    "raid" text,
    "network_adapter" text,
    "mac_ip" text,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.host_detail IS
    'Configuration of hosts: the list as its newest complete pull had it. Source: ESM API Reference "主机详情配置查询 (configuration of hosts)" (zh 4.1.14, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.host_detail.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.host_detail.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.host_detail.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.host_detail.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.host_detail.host_id IS
    'Id of the host.';
COMMENT ON COLUMN billing.host_detail.host_name IS
    'Name of the host.';
COMMENT ON COLUMN billing.host_detail.sn IS
    'Serial number of the host.';
COMMENT ON COLUMN billing.host_detail.region_id IS
    'Region of the host. Unit: code.';
COMMENT ON COLUMN billing.host_detail.az_code IS
    'Availability zone of the host. Unit: code.';
COMMENT ON COLUMN billing.host_detail.dc_code IS
    'Data center of the host. Unit: code.';
COMMENT ON COLUMN billing.host_detail.room_code IS
    'Room of the host. Unit: code.';
COMMENT ON COLUMN billing.host_detail.rack_code IS
    'Rack of the host. Unit: code.';
COMMENT ON COLUMN billing.host_detail.pod_code IS
    'Pod of the host. Unit: code.';
COMMENT ON COLUMN billing.host_detail.cluster_name IS
    'Cluster of the host.';
COMMENT ON COLUMN billing.host_detail.manufacturer IS
    'Manufacturer of the host.';
COMMENT ON COLUMN billing.host_detail.kernel IS
    'Kernel of the operating system.';
COMMENT ON COLUMN billing.host_detail.cpu_arch IS
    'Architecture, such as x86_64.';
COMMENT ON COLUMN billing.host_detail.cpu IS
    'Processors: an array in JSON inside a text, stored as sent.';
COMMENT ON COLUMN billing.host_detail.memory IS
    'Memory modules: an array in JSON inside a text, stored as sent.';
COMMENT ON COLUMN billing.host_detail.disk IS
    'Disks: an array in JSON inside a text, stored as sent.';
COMMENT ON COLUMN billing.host_detail.raid IS
    'RAID of the host.';
COMMENT ON COLUMN billing.host_detail.network_adapter IS
    'Network adapters of the host.';
COMMENT ON COLUMN billing.host_detail.mac_ip IS
    'Network address of the host.';
COMMENT ON COLUMN billing.host_detail.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.host_detail TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.host_detail TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.host_detail;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'host_details');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'host_details');
DELETE FROM sdr_sync.window WHERE stream = 'host_details';
DELETE FROM sdr_sync.job WHERE stream = 'host_details';
DELETE FROM sdr_sync.partition WHERE stream = 'host_details';
