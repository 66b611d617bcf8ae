-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- Made from schemas/hardware_alarms.yaml: make stream NAME=hardware_alarms
CREATE TABLE billing.hardware_alarm (
    "event_date" date NOT NULL,
    "window_id" bigint NOT NULL,
    "record_key" uuid NOT NULL,
    "ordinal" integer NOT NULL,
    "csn" text NOT NULL,
    "alarm_id" text,
    "alarm_name" text,
    "severity" text,
    "event_type" text,
    "origin_system_type" text,
    "origin_system_name" text,
    "moi" text,
    "additional_information" text,
    "first_occur_utc" timestamptz NOT NULL,
    "latest_occur_utc" timestamptz,
    "me_name" text,
    "count" bigint,
    "probable_cause" text,
    "region" text,
    "dc_name" text,
    "res_pool_name" text,
    "azone_name" text,
    "tenant" text,
    "native_me_dn" text,
    "moc" text,
    "cleared" text,
    "clear_category" text,
    "clear_utc" timestamptz,
    "clear_user" text,
    "clear_type" text,
    "acked" text,
    "ack_user" text,
    "ack_utc" timestamptz,
    "merge_key" text,
    "me_category" text,
    "me_type" text,
    "product_name" text,
    "logical_region_id" text,
    "service_affected_type" text,
    "affected_service" text,
    "me_dn" text,
    "extra" jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, event_date)
) PARTITION BY RANGE (event_date);
CREATE INDEX hardware_alarm_first_occur_utc ON billing.hardware_alarm USING brin ("first_occur_utc");
COMMENT ON TABLE billing.hardware_alarm IS
    'Alarms of hardware: one row each, partitioned by event month. Identity is window, record_key and ordinal. Source: ESM API Reference "Querying Hardware Alarm Information" (en 4.1.6, issue 01, 2025-10-30; zh 4.1.7, issue 06, 2025-03-30).';
COMMENT ON COLUMN billing.hardware_alarm.event_date IS
    'Date of the event in the source time zone; the partition key.';
COMMENT ON COLUMN billing.hardware_alarm.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.hardware_alarm.record_key IS
    'Time of the event in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.hardware_alarm.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.hardware_alarm.csn IS
    'Sequence number of the alarm.';
COMMENT ON COLUMN billing.hardware_alarm.alarm_id IS
    'Id of the kind of alarm. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.alarm_name IS
    'Name of the alarm.';
COMMENT ON COLUMN billing.hardware_alarm.severity IS
    '1 critical, 2 major, 3 minor, 4 warning: the other way round than in audit logs. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.event_type IS
    'Type of the event. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.origin_system_type IS
    'Type of the system that raised the alarm.';
COMMENT ON COLUMN billing.hardware_alarm.origin_system_name IS
    'Name of the system that raised the alarm.';
COMMENT ON COLUMN billing.hardware_alarm.moi IS
    'What the alarm is about, to locate it.';
COMMENT ON COLUMN billing.hardware_alarm.additional_information IS
    'Additional information.';
COMMENT ON COLUMN billing.hardware_alarm.first_occur_utc IS
    'When the alarm occurred first, which never changes. The time of the event. Unit: instant (UTC).';
COMMENT ON COLUMN billing.hardware_alarm.latest_occur_utc IS
    'When the alarm occurred last. Unit: instant (UTC).';
COMMENT ON COLUMN billing.hardware_alarm.me_name IS
    'Name of the object that the alarm is about.';
COMMENT ON COLUMN billing.hardware_alarm.count IS
    'How often the alarm occurred.';
COMMENT ON COLUMN billing.hardware_alarm.probable_cause IS
    'Probable cause.';
COMMENT ON COLUMN billing.hardware_alarm.region IS
    'Name of the region.';
COMMENT ON COLUMN billing.hardware_alarm.dc_name IS
    'Name of the data center.';
COMMENT ON COLUMN billing.hardware_alarm.res_pool_name IS
    'Pod that the alarm was reported for.';
COMMENT ON COLUMN billing.hardware_alarm.azone_name IS
    'Name of the availability zone.';
COMMENT ON COLUMN billing.hardware_alarm.tenant IS
    'Name of the tenant.';
COMMENT ON COLUMN billing.hardware_alarm.native_me_dn IS
    'IP address of the alarm.';
COMMENT ON COLUMN billing.hardware_alarm.moc IS
    'Type of the object. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.cleared IS
    '0 the alarm stands, 1 it is cleared. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.clear_category IS
    'Whether the alarm can be cleared automatically. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.clear_utc IS
    'When the alarm was cleared; NULL while it stands. Unit: instant (UTC).';
COMMENT ON COLUMN billing.hardware_alarm.clear_user IS
    'Who cleared the alarm.';
COMMENT ON COLUMN billing.hardware_alarm.clear_type IS
    'How the alarm was cleared. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.acked IS
    '1 the alarm is acknowledged, 0 it is not. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.ack_user IS
    'Who acknowledged the alarm.';
COMMENT ON COLUMN billing.hardware_alarm.ack_utc IS
    'When the alarm was acknowledged; NULL if it was not. Unit: instant (UTC).';
COMMENT ON COLUMN billing.hardware_alarm.merge_key IS
    'Key by which alarms are merged.';
COMMENT ON COLUMN billing.hardware_alarm.me_category IS
    'Cloud service that the alarm arose in.';
COMMENT ON COLUMN billing.hardware_alarm.me_type IS
    'Service that the alarm arose in.';
COMMENT ON COLUMN billing.hardware_alarm.product_name IS
    'Microservice that the alarm arose in.';
COMMENT ON COLUMN billing.hardware_alarm.logical_region_id IS
    'Region of the alarm. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.service_affected_type IS
    'Whether the alarm affects services. Unit: code.';
COMMENT ON COLUMN billing.hardware_alarm.affected_service IS
    'Name of the affected service.';
COMMENT ON COLUMN billing.hardware_alarm.me_dn IS
    'Id of the object that the alarm is about.';
COMMENT ON COLUMN billing.hardware_alarm.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

GRANT SELECT ON billing.hardware_alarm TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.hardware_alarm TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP TABLE billing.hardware_alarm;
-- What the ledger says of the stream goes with it: it would say that rows stand which do not.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'hardware_alarms');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream = 'hardware_alarms');
DELETE FROM sdr_sync.window WHERE stream = 'hardware_alarms';
DELETE FROM sdr_sync.job WHERE stream = 'hardware_alarms';
DELETE FROM sdr_sync.partition WHERE stream = 'hardware_alarms';
