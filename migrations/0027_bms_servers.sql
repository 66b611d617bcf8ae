-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/bms_servers.yaml: make stream NAME=bms_servers
CREATE TABLE billing.bms_server (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "server_id" text,
    "id" text,
    "name" text,
    "status" text,
    "tenant_id" text,
    "user_id" text,
    "enterprise_project_id" text,
    "description" text,
    "created" timestamptz,
    "updated" timestamptz,
    "launched_at" text,
    "terminated_at" text,
    "availability_zone" text,
    "host_id" text,
    "host_status" text,
    "hostname" text,
    "host" text,
    "hypervisor_hostname" text,
    "instance_name" text,
    "vm_state" text,
    "task_state" text,
    "power_state" integer,
    "locked" text,
    "key_name" text,
    "flavor" jsonb,
    "image" jsonb,
    "addresses" jsonb,
    "security_groups" jsonb,
    "volumes_attached" jsonb,
    "metadata" jsonb,
    "tags" jsonb,
    "sys_tags" jsonb,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.bms_server IS
    'Bare metal servers: the list as its newest complete pull had it. Source: BMS API Overview (2022-02-22), "Querying Details About a BMS"; fields by BMS API Reference of the same name (2025-12-09).';
COMMENT ON COLUMN billing.bms_server.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.bms_server.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.bms_server.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.bms_server.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.bms_server.server_id IS
    'Server that was asked for: resource_id of a metering record or subscription.';
COMMENT ON COLUMN billing.bms_server.id IS
    'Id of the server, the same as server_id.';
COMMENT ON COLUMN billing.bms_server.name IS
    'Name of the server.';
COMMENT ON COLUMN billing.bms_server.status IS
    'ACTIVE, BUILD, ERROR, HARD_REBOOT, REBOOT, DELETED or SHUTOFF. Unit: code.';
COMMENT ON COLUMN billing.bms_server.tenant_id IS
    'Project of the server.';
COMMENT ON COLUMN billing.bms_server.user_id IS
    'User who created the server.';
COMMENT ON COLUMN billing.bms_server.enterprise_project_id IS
    'Enterprise project; empty and 0 both mean none.';
COMMENT ON COLUMN billing.bms_server.description IS
    'Description of the server.';
COMMENT ON COLUMN billing.bms_server.created IS
    'When the server was created. Unit: instant (UTC).';
COMMENT ON COLUMN billing.bms_server.updated IS
    'When the server was last updated. Unit: instant (UTC).';
COMMENT ON COLUMN billing.bms_server.launched_at IS
    'When the server was started first, as sent: UTC without a zone.';
COMMENT ON COLUMN billing.bms_server.terminated_at IS
    'When the server was deleted, as sent: UTC without a zone.';
COMMENT ON COLUMN billing.bms_server.availability_zone IS
    'Availability zone of the server.';
COMMENT ON COLUMN billing.bms_server.host_id IS
    'Physical host of the server.';
COMMENT ON COLUMN billing.bms_server.host_status IS
    'UP, UNKNOWN, DOWN or MAINTENANCE; NULL where the server has no host. Unit: code.';
COMMENT ON COLUMN billing.bms_server.hostname IS
    'Host name of the server.';
COMMENT ON COLUMN billing.bms_server.host IS
    'Name of the host that the server is on.';
COMMENT ON COLUMN billing.bms_server.hypervisor_hostname IS
    'Name of the hypervisor.';
COMMENT ON COLUMN billing.bms_server.instance_name IS
    'Instance name of the server.';
COMMENT ON COLUMN billing.bms_server.vm_state IS
    'Stable state, such as active, shutoff or reboot. Unit: code.';
COMMENT ON COLUMN billing.bms_server.task_state IS
    'Task at work on the server, such as powering-off; NULL if there is none. Unit: code.';
COMMENT ON COLUMN billing.bms_server.power_state IS
    '0 no state, 1 running, 4 shut down. Unit: code.';
COMMENT ON COLUMN billing.bms_server.locked IS
    'true if the server is locked.';
COMMENT ON COLUMN billing.bms_server.key_name IS
    'Name of the key pair to log in with.';
COMMENT ON COLUMN billing.bms_server.flavor IS
    'Specification of the server: id, name, disk, vcpus and ram.';
COMMENT ON COLUMN billing.bms_server.image IS
    'Image of the server.';
COMMENT ON COLUMN billing.bms_server.addresses IS
    'Networks of the server: the addresses in each VPC.';
COMMENT ON COLUMN billing.bms_server.security_groups IS
    'Security groups of the server.';
COMMENT ON COLUMN billing.bms_server.volumes_attached IS
    'Disks attached to the server.';
COMMENT ON COLUMN billing.bms_server.metadata IS
    'Metadata of the server; chargingMode 1 is yearly/monthly, metering.* name order, product, specification and image.';
COMMENT ON COLUMN billing.bms_server.tags IS
    'Tags of the server.';
COMMENT ON COLUMN billing.bms_server.sys_tags IS
    'System tags of the server.';
COMMENT ON COLUMN billing.bms_server.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.bms_server TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.bms_server TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.bms_server;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'bms_servers');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'bms_servers');
DELETE FROM sdr_sync.window WHERE stream = 'bms_servers';
DELETE FROM sdr_sync.job WHERE stream = 'bms_servers';
DELETE FROM sdr_sync.partition WHERE stream = 'bms_servers';
