-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/elbv3.yaml: make stream NAME=elbv3
CREATE TABLE billing.elbv3 (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "cluster_id" text,
    "cluster_code" text,
    "cluster_name" text,
    "type" text,
    "region_id" text,
    "region_name" text,
    "time_stamp" timestamptz,
    "lb_count" bigint,
    "lb_v5_count" bigint,
    "lb_capacity" bigint,
    "l4_listener_count" bigint,
    "l4_listener_capacity" bigint,
    "l4_member_count" bigint,
    "l4_member_capacity" bigint,
    "l7_listener_count" bigint,
    "l7_listener_capacity" bigint,
    "l7_member_count" bigint,
    "l7_member_capacity" bigint,
    "ms_nodes_list" text,
    "extra" jsonb,
    PRIMARY KEY (natural_key, ordinal)
);
COMMENT ON TABLE billing.elbv3 IS
    'ELBv3 clusters: the list as its newest complete pull had it. Source: ESM API Reference "查询 ELBv3 资源明细 (ELBv3 resources)" (zh 4.1.11, issue 06, 2025-03-30; not in en).';
COMMENT ON COLUMN billing.elbv3.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.elbv3.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.elbv3.ordinal IS
    '0 for the first record of this content, 1 and up for exact twins.';
COMMENT ON COLUMN billing.elbv3.first_seen IS
    'When a complete pull first had the row. It was last seen by the stream''s newest pull in billing.snapshot_log.';
COMMENT ON COLUMN billing.elbv3.cluster_id IS
    'Id of the cluster.';
COMMENT ON COLUMN billing.elbv3.cluster_code IS
    'Code of the cluster, such as elbv3-cluster01-az1.';
COMMENT ON COLUMN billing.elbv3.cluster_name IS
    'Name of the cluster.';
COMMENT ON COLUMN billing.elbv3.type IS
    'ELBv3. Unit: code.';
COMMENT ON COLUMN billing.elbv3.region_id IS
    'Region of the cluster. Unit: code.';
COMMENT ON COLUMN billing.elbv3.region_name IS
    'Name of the region.';
COMMENT ON COLUMN billing.elbv3.time_stamp IS
    'When the counts were taken. Unit: instant (UTC).';
COMMENT ON COLUMN billing.elbv3.lb_count IS
    'Number of load balancers.';
COMMENT ON COLUMN billing.elbv3.lb_v5_count IS
    'Number of load balancers of version 5.';
COMMENT ON COLUMN billing.elbv3.lb_capacity IS
    'Number of load balancers that the cluster can hold.';
COMMENT ON COLUMN billing.elbv3.l4_listener_count IS
    'Number of layer 4 listeners.';
COMMENT ON COLUMN billing.elbv3.l4_listener_capacity IS
    'Number of layer 4 listeners that the cluster can hold.';
COMMENT ON COLUMN billing.elbv3.l4_member_count IS
    'Number of layer 4 backends; NULL where it is not known.';
COMMENT ON COLUMN billing.elbv3.l4_member_capacity IS
    'Number of layer 4 backends that the cluster can hold.';
COMMENT ON COLUMN billing.elbv3.l7_listener_count IS
    'Number of layer 7 listeners.';
COMMENT ON COLUMN billing.elbv3.l7_listener_capacity IS
    'Number of layer 7 listeners that the cluster can hold.';
COMMENT ON COLUMN billing.elbv3.l7_member_count IS
    'Number of layer 7 backends.';
COMMENT ON COLUMN billing.elbv3.l7_member_capacity IS
    'Number of layer 7 backends that the cluster can hold.';
COMMENT ON COLUMN billing.elbv3.ms_nodes_list IS
    'Nodes of the cluster; empty in the sample.';
COMMENT ON COLUMN billing.elbv3.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.elbv3 TO sdr_sync_reader;
GRANT INSERT, UPDATE, DELETE ON billing.elbv3 TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.elbv3;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'elbv3');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'elbv3');
DELETE FROM sdr_sync.window WHERE stream = 'elbv3';
DELETE FROM sdr_sync.job WHERE stream = 'elbv3';
DELETE FROM sdr_sync.partition WHERE stream = 'elbv3';
