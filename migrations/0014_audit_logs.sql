-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/audit_logs.yaml: make stream NAME=audit_logs
CREATE TABLE billing.audit_log (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "id" text NOT NULL,
    "start_time" timestamptz NOT NULL,
    "end_time" timestamptz,
    "type" text,
    "severity" text,
    "operating_name" text,
    "operating_source" text,
    "operation_result" text,
    "operation_detail" text,
    "operating_user" text,
    "department" text,
    "resource_id" text,
    "resource_name" text,
    "resource_type" text,
    "resource_region" text,
    "resource_region_name" text,
    "source_addr" text,
    "region_id" text,
    "region_name" text,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX audit_log_start_time ON billing.audit_log USING brin ("start_time");
COMMENT ON TABLE billing.audit_log IS
    'Audit logs (operation logs): one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "Querying Audit Logs (Operation Logs)" (en 4.1.3, issue 01, 2025-10-30; zh 4.1.4, issue 06, 2025-03-30).';
COMMENT ON COLUMN billing.audit_log.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.audit_log.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.audit_log.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.audit_log.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.audit_log.id IS
    'Id of the log entry.';
COMMENT ON COLUMN billing.audit_log.start_time IS
    'When the operation began; sent without a zone and read in the source time zone. The time of the event. Unit: instant (UTC).';
COMMENT ON COLUMN billing.audit_log.end_time IS
    'When the operation ended. Unit: instant (UTC).';
COMMENT ON COLUMN billing.audit_log.type IS
    'Log type. 0 operation log, 1 security log. Unit: code.';
COMMENT ON COLUMN billing.audit_log.severity IS
    'Risk. 4 critical, 3 major, 2 minor, 1 warning: the other way round than in alarms. Unit: code.';
COMMENT ON COLUMN billing.audit_log.operating_name IS
    'Name of the operation.';
COMMENT ON COLUMN billing.audit_log.operating_source IS
    'Where the operation came from; a number by the table, a text by the samples. Unit: code.';
COMMENT ON COLUMN billing.audit_log.operation_result IS
    '0 the operation succeeded, 1 it failed. Unit: code.';
COMMENT ON COLUMN billing.audit_log.operation_detail IS
    'Details of the operation.';
COMMENT ON COLUMN billing.audit_log.operating_user IS
    'Who did it.';
COMMENT ON COLUMN billing.audit_log.department IS
    'Department of the user.';
COMMENT ON COLUMN billing.audit_log.resource_id IS
    'Resource that was operated on.';
COMMENT ON COLUMN billing.audit_log.resource_name IS
    'Name of the resource.';
COMMENT ON COLUMN billing.audit_log.resource_type IS
    'Type of the resource. Unit: code.';
COMMENT ON COLUMN billing.audit_log.resource_region IS
    'Region of the resource.';
COMMENT ON COLUMN billing.audit_log.resource_region_name IS
    'Name of the resource''s region.';
COMMENT ON COLUMN billing.audit_log.source_addr IS
    'IP address; of the resource, the tables say.';
COMMENT ON COLUMN billing.audit_log.region_id IS
    'Region of the log entry.';
COMMENT ON COLUMN billing.audit_log.region_name IS
    'Name of that region.';
COMMENT ON COLUMN billing.audit_log.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.audit_log TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.audit_log TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.audit_log;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'audit_logs');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'audit_logs');
DELETE FROM sdr_sync.window WHERE stream = 'audit_logs';
DELETE FROM sdr_sync.job WHERE stream = 'audit_logs';
DELETE FROM sdr_sync.partition WHERE stream = 'audit_logs';
