-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/external_tenant_resources.yaml: make stream NAME=external_tenant_resources
CREATE TABLE billing.external_tenant_resource (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "resource_type" text,
    "record_type" text,
    "sdr_time" timestamptz,
    "site_code" text,
    "region_code" text,
    "az_code" text,
    "domain_id" text,
    "domain_name" text,
    "project_id" text,
    "enterprise_project_id" text,
    "cloud_service_type_code" text,
    "resource_type_code" text,
    "resource_spec_code" text,
    "resource_id" text,
    "begin_time" timestamptz NOT NULL,
    "accumulate_factor_name" text,
    "accumulate_factor_value" numeric(38,12),
    "extend_params" text,
    "extend_params2" text,
    "csb_params" text,
    "tag" text,
    "bp_info" text,
    "error_msg" text,
    "relate_parent_resource" text,
    "relate_root_resource" text,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX external_tenant_resource_begin_time ON billing.external_tenant_resource USING brin ("begin_time");
COMMENT ON TABLE billing.external_tenant_resource IS
    'External tenant resources: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "Querying External Tenant Resources" (en 4.1.8, issue 01, 2025-10-30; zh 4.1.12, issue 06, 2025-03-30).';
COMMENT ON COLUMN billing.external_tenant_resource.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.external_tenant_resource.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.external_tenant_resource.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.external_tenant_resource.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.external_tenant_resource.resource_type IS
    'Kind of resource that was asked for, such as ECS or MODEL_ARTS_INF. Unit: code.';
COMMENT ON COLUMN billing.external_tenant_resource.record_type IS
    '20 is a normal record, 30 a corrected one. Unit: code.';
COMMENT ON COLUMN billing.external_tenant_resource.sdr_time IS
    'When the vendor generated this record, often long after the usage. Unit: instant (UTC).';
COMMENT ON COLUMN billing.external_tenant_resource.site_code IS
    'Site code as the vendor sends it.';
COMMENT ON COLUMN billing.external_tenant_resource.region_code IS
    'Region of the resource, such as cn-north-213.';
COMMENT ON COLUMN billing.external_tenant_resource.az_code IS
    'Availability zone.';
COMMENT ON COLUMN billing.external_tenant_resource.domain_id IS
    'Tenant account that owns the resource.';
COMMENT ON COLUMN billing.external_tenant_resource.domain_name IS
    'Name of the tenant account.';
COMMENT ON COLUMN billing.external_tenant_resource.project_id IS
    'Project of the resource; not always hexadecimal.';
COMMENT ON COLUMN billing.external_tenant_resource.enterprise_project_id IS
    'Enterprise project.';
COMMENT ON COLUMN billing.external_tenant_resource.cloud_service_type_code IS
    'Cloud service, such as hws.service.type.ec2. Unit: code.';
COMMENT ON COLUMN billing.external_tenant_resource.resource_type_code IS
    'Resource type, such as hws.resource.type.vm. Unit: code.';
COMMENT ON COLUMN billing.external_tenant_resource.resource_spec_code IS
    'Specification, such as ks1.xlarge.2.linux. Unit: code.';
COMMENT ON COLUMN billing.external_tenant_resource.resource_id IS
    'Resource that was metered; not always a UUID.';
COMMENT ON COLUMN billing.external_tenant_resource.begin_time IS
    'When the metered period began; 14 digits, read in the source time zone. The time of the event. Unit: instant (UTC).';
COMMENT ON COLUMN billing.external_tenant_resource.accumulate_factor_name IS
    'What was metered, such as Duration; compare without case and never sum across factors. Unit: code.';
COMMENT ON COLUMN billing.external_tenant_resource.accumulate_factor_value IS
    'Amount metered, exact; NULL where none was sent. Unit: unit of the factor (Duration is in seconds).';
COMMENT ON COLUMN billing.external_tenant_resource.extend_params IS
    'Free parameters of the service, stored as sent.';
COMMENT ON COLUMN billing.external_tenant_resource.extend_params2 IS
    'More free parameters, stored as sent.';
COMMENT ON COLUMN billing.external_tenant_resource.csb_params IS
    'Operation parameters joined by colons, stored as sent.';
COMMENT ON COLUMN billing.external_tenant_resource.tag IS
    'Resource tag, stored as sent.';
COMMENT ON COLUMN billing.external_tenant_resource.bp_info IS
    'Service information, stored as sent.';
COMMENT ON COLUMN billing.external_tenant_resource.error_msg IS
    'Error of the vendor''s mediation where there is one; the record is kept.';
COMMENT ON COLUMN billing.external_tenant_resource.relate_parent_resource IS
    'Parent resource.';
COMMENT ON COLUMN billing.external_tenant_resource.relate_root_resource IS
    'Root resource.';
COMMENT ON COLUMN billing.external_tenant_resource.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.external_tenant_resource TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.external_tenant_resource TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.external_tenant_resource;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'external_tenant_resources');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'external_tenant_resources');
DELETE FROM sdr_sync.window WHERE stream = 'external_tenant_resources';
DELETE FROM sdr_sync.job WHERE stream = 'external_tenant_resources';
DELETE FROM sdr_sync.partition WHERE stream = 'external_tenant_resources';
