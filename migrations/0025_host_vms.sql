-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/host_vms.yaml: make stream NAME=host_vms
CREATE TABLE billing.host_vm (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "host_id" text,
    "host_name" text,
    "host_ip" text,
    "region_id" text,
    "vm_list" text,
    "last_update_time" timestamptz,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.host_vm IS
    'Virtual machines of hosts: the list as its newest complete pull had it. Source: ESM API Reference "主机与虚拟机关系查询 (hosts and their virtual machines)" (zh 4.1.16, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.host_vm.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.host_vm.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.host_vm.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.host_vm.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.host_vm.host_id IS
    'Id of the host.';
COMMENT ON COLUMN billing.host_vm.host_name IS
    'Name of the host.';
COMMENT ON COLUMN billing.host_vm.host_ip IS
    'IP address of the host.';
COMMENT ON COLUMN billing.host_vm.region_id IS
    'Region of the host. Unit: code.';
COMMENT ON COLUMN billing.host_vm.vm_list IS
    'Virtual machines of the host: nested lists as Python prints them, stored as sent.';
COMMENT ON COLUMN billing.host_vm.last_update_time IS
    'When the list was last updated. Unit: instant (UTC).';
COMMENT ON COLUMN billing.host_vm.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.host_vm TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.host_vm TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.host_vm;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'host_vms');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'host_vms');
DELETE FROM sdr_sync.window WHERE stream = 'host_vms';
DELETE FROM sdr_sync.job WHERE stream = 'host_vms';
DELETE FROM sdr_sync.partition WHERE stream = 'host_vms';
