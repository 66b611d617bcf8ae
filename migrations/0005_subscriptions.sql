-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/subscriptions.yaml: make stream NAME=subscriptions
CREATE TABLE billing.subscription (
    "natural_key" uuid NOT NULL,
    "record_key" uuid NOT NULL,
    "valid_from" timestamptz NOT NULL,
    "valid_to" timestamptz,
    "opened_reason" text NOT NULL,
    "closed_reason" text,
    "absent_since" timestamptz,
    "id" text NOT NULL,
    "resource_id" text,
    "resource_name" text,
    "region_code" text,
    "cloud_service_type_code" text,
    "service_type_name" text,
    "resource_type_code" text,
    "resource_type_name" text,
    "resource_spec_code" text,
    "product_spec_desc" text,
    "spec_size" numeric(38,12),
    "spec_size_measure_id" integer,
    "project_code" text,
    "enterprise_project" jsonb,
    "product_id" text,
    "main_resource_id" text,
    "is_main_resource" integer,
    "status" integer,
    "valid_time" timestamptz,
    "expire_time" timestamptz,
    "next_operation_policy" integer,
    "update_time" timestamptz,
    "extra" jsonb,
    PRIMARY KEY (natural_key, valid_from),
    CHECK (valid_to > valid_from),
    CHECK (opened_reason IN ('appeared', 'changed', 'reappeared')),
    CHECK (closed_reason IN ('changed', 'disappeared')),
    CHECK ((valid_to IS NULL) = (closed_reason IS NULL)),
    CHECK (absent_since IS NULL OR absent_since > valid_from AND valid_to IS NULL),
    CONSTRAINT subscription_no_overlap EXCLUDE USING gist (
        int8range(uuid_hash_extended(natural_key, 0), uuid_hash_extended(natural_key, 0), '[]') WITH &&,
        tstzrange(valid_from, valid_to) WITH &&)
);
CREATE UNIQUE INDEX subscription_open ON billing.subscription (natural_key) WHERE valid_to IS NULL;
COMMENT ON TABLE billing.subscription IS
    'Yearly/monthly resources (subscriptions): every version of each row, with the time it stood. The rows without valid_to are the present. Source: BSS "Querying Customer''s Yearly/Monthly Resources" (2023-12-13; v1); its successor of that name (2025-12-02; v2).';
COMMENT ON COLUMN billing.subscription.natural_key IS
    'Hash of the fields that tell rows from one another.';
COMMENT ON COLUMN billing.subscription.record_key IS
    'The first 128 bits of the hash of the record''s content.';
COMMENT ON COLUMN billing.subscription.valid_from IS
    'When the pull began that first had this version of the row.';
COMMENT ON COLUMN billing.subscription.valid_to IS
    'When the pull began that first no longer had it; NULL while it stands.';
COMMENT ON COLUMN billing.subscription.opened_reason IS
    'Why the version began: appeared, changed, or reappeared after it was gone.';
COMMENT ON COLUMN billing.subscription.closed_reason IS
    'Why the version ended: changed or disappeared; NULL while it stands.';
COMMENT ON COLUMN billing.subscription.absent_since IS
    'When the pull began that first lacked the row, while the next complete pull has yet to confirm that it is gone.';
COMMENT ON COLUMN billing.subscription.id IS
    'Internal id of the provisioned resource; it tells subscriptions from one another.';
COMMENT ON COLUMN billing.subscription.resource_id IS
    'Id that the cloud service gave the resource, such as server_id of an ECS.';
COMMENT ON COLUMN billing.subscription.resource_name IS
    'Name of the resource.';
COMMENT ON COLUMN billing.subscription.region_code IS
    'Region of the resource, such as cn-north-1.';
COMMENT ON COLUMN billing.subscription.cloud_service_type_code IS
    'Cloud service, such as hws.service.type.ec2. Unit: code.';
COMMENT ON COLUMN billing.subscription.service_type_name IS
    'Name of the cloud service; NULL under v1.';
COMMENT ON COLUMN billing.subscription.resource_type_code IS
    'Resource type, such as hws.resource.type.vm. Unit: code.';
COMMENT ON COLUMN billing.subscription.resource_type_name IS
    'Name of the resource type; NULL under v1.';
COMMENT ON COLUMN billing.subscription.resource_spec_code IS
    'Specification, such as s3.medium.2.linux. Unit: code.';
COMMENT ON COLUMN billing.subscription.product_spec_desc IS
    'Specification in words; NULL under v1.';
COMMENT ON COLUMN billing.subscription.spec_size IS
    'Size of a resource that has one, such as a disk or a bandwidth; NULL under v1. Unit: spec_size_measure_id.';
COMMENT ON COLUMN billing.subscription.spec_size_measure_id IS
    'Unit of spec_size; see billing.measure_unit. NULL under v1. Unit: code.';
COMMENT ON COLUMN billing.subscription.project_code IS
    'Project of the resource.';
COMMENT ON COLUMN billing.subscription.enterprise_project IS
    'Enterprise project as an object with id and name; NULL under v1.';
COMMENT ON COLUMN billing.subscription.product_id IS
    'Product that was bought.';
COMMENT ON COLUMN billing.subscription.main_resource_id IS
    'resource_id of the primary resource that this one belongs to.';
COMMENT ON COLUMN billing.subscription.is_main_resource IS
    '1 for a primary resource, 0 for an attached one. Unit: code.';
COMMENT ON COLUMN billing.subscription.status IS
    '2 provisioned, 3 closed, 4 frozen, 5 expired; other documents number them otherwise, so other values are kept as they are. Unit: code.';
COMMENT ON COLUMN billing.subscription.valid_time IS
    'When the resource took effect. Unit: instant (UTC).';
COMMENT ON COLUMN billing.subscription.expire_time IS
    'When the resource expires. Unit: instant (UTC).';
COMMENT ON COLUMN billing.subscription.next_operation_policy IS
    'What happens on expiry. 0 grace period, 1 pay-per-use, 2 deleted at once, 3 renewed automatically, 4 frozen, 5 deleted after the retention period; only 3 renews. Unit: code.';
COMMENT ON COLUMN billing.subscription.update_time IS
    'When the subscription was last updated; NULL under v1. Unit: instant (UTC).';
COMMENT ON COLUMN billing.subscription.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.subscription TO sdr_sync_reader;
GRANT INSERT, UPDATE ON billing.subscription TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.subscription;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'subscriptions');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'subscriptions');
DELETE FROM sdr_sync.window WHERE stream = 'subscriptions';
DELETE FROM sdr_sync.job WHERE stream = 'subscriptions';
DELETE FROM sdr_sync.partition WHERE stream = 'subscriptions';
