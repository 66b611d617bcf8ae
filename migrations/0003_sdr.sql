-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- The key leads with the window and then with the usage time that leads record_key, so that a window's rows go into the index in
-- order: random keys cost 1.5 to 2.3 times as much to insert.
CREATE TABLE billing.sdr (
    usage_date date NOT NULL,
    site text NOT NULL,
    window_id bigint NOT NULL,
    record_key uuid NOT NULL,
    ordinal integer NOT NULL,
    natural_key uuid NOT NULL,
    record_type text,
    sdr_time timestamptz,
    site_code text,
    region_code text,
    az_code text,
    domain_id text,
    domain_name text,
    project_id text,
    enterprise_project_id text,
    cloud_service_type_code text,
    resource_type_code text,
    resource_spec_code text,
    resource_id text,
    product_id text,
    begin_time timestamptz NOT NULL,
    end_time timestamptz,
    accumulate_factor_name text,
    accumulate_factor_value numeric(38,12),
    extend_params text,
    extend_params2 text,
    csb_params text,
    tag text,
    bp_info text,
    error_msg text,
    relate_parent_resource text,
    relate_root_resource text,
    extra jsonb,
    PRIMARY KEY (window_id, record_key, ordinal, usage_date)
) PARTITION BY RANGE (usage_date);
CREATE INDEX sdr_begin_time ON billing.sdr USING brin (begin_time);
COMMENT ON TABLE billing.sdr IS
    'Metering records (SDR), one row each, partitioned by usage month. Identity is window, record_key and ordinal.';
COMMENT ON COLUMN billing.sdr.usage_date IS
    'Date of begin_time in the source time zone; the partition key.';
COMMENT ON COLUMN billing.sdr.site IS
    'Site (hcso_id) whose query job returned the record.';
COMMENT ON COLUMN billing.sdr.window_id IS
    'Window that published the record; see sdr_sync.window.';
COMMENT ON COLUMN billing.sdr.record_key IS
    'Begin time in seconds (4 bytes, big endian), then the first 12 bytes of the record hash; equal content gives an equal key.';
COMMENT ON COLUMN billing.sdr.ordinal IS
    '0 for the first record of this content in its window, 1 and up for exact twins.';
COMMENT ON COLUMN billing.sdr.natural_key IS
    'Hash of site, region, project, service, type, spec, resource, factor and begin time; records that share it correct one another.';
COMMENT ON COLUMN billing.sdr.record_type IS
    '20 is a normal record, 30 a corrected one; whether a correction replaces or adds is documented nowhere. Unit: code.';
COMMENT ON COLUMN billing.sdr.sdr_time IS
    'When the vendor generated this record, often long after the usage. Unit: instant (UTC).';
COMMENT ON COLUMN billing.sdr.site_code IS
    'Site code as the vendor sends it; may be empty.';
COMMENT ON COLUMN billing.sdr.region_code IS
    'Region of the resource, such as cn-north-213.';
COMMENT ON COLUMN billing.sdr.az_code IS
    'Availability zone; empty or a dummy for regional services.';
COMMENT ON COLUMN billing.sdr.domain_id IS
    'Tenant account that owns the resource.';
COMMENT ON COLUMN billing.sdr.domain_name IS
    'Name of the tenant account.';
COMMENT ON COLUMN billing.sdr.project_id IS
    'Project of the resource. The sibling formats call it user id and fill in the project id.';
COMMENT ON COLUMN billing.sdr.enterprise_project_id IS
    'Enterprise project; empty and 0 both mean none.';
COMMENT ON COLUMN billing.sdr.cloud_service_type_code IS
    'Cloud service, such as hws.service.type.ec2. Unit: code.';
COMMENT ON COLUMN billing.sdr.resource_type_code IS
    'Resource type, such as hws.resource.type.vm. Unit: code.';
COMMENT ON COLUMN billing.sdr.resource_spec_code IS
    'Specification, such as ks1.xlarge.2.linux. Unit: code.';
COMMENT ON COLUMN billing.sdr.resource_id IS
    'Resource that was metered; not always a UUID.';
COMMENT ON COLUMN billing.sdr.product_id IS
    'Product of the offer, where a site sends it.';
COMMENT ON COLUMN billing.sdr.begin_time IS
    'When the metered period began. The usage time of the record. Unit: instant (UTC).';
COMMENT ON COLUMN billing.sdr.end_time IS
    'When the metered period ended, where sent; inclusive in some formats and exclusive in others, so never compute a duration from it. Unit: instant (UTC).';
COMMENT ON COLUMN billing.sdr.accumulate_factor_name IS
    'What was metered, such as Duration or upflow; compare without case and never sum across factors. Unit: code.';
COMMENT ON COLUMN billing.sdr.accumulate_factor_value IS
    'Amount metered, exact. NULL where the vendor sent none; such records are counted. Unit: unit of the factor (Duration is in seconds; the API sends no unit).';
COMMENT ON COLUMN billing.sdr.extend_params IS
    'Free parameters of the service, stored as sent.';
COMMENT ON COLUMN billing.sdr.extend_params2 IS
    'More free parameters, stored as sent.';
COMMENT ON COLUMN billing.sdr.csb_params IS
    'Operation parameters joined by colons; their parts are undocumented and stored as sent.';
COMMENT ON COLUMN billing.sdr.tag IS
    'Resource tag, stored as sent.';
COMMENT ON COLUMN billing.sdr.bp_info IS
    'Service information, stored as sent.';
COMMENT ON COLUMN billing.sdr.error_msg IS
    'Error of the vendor''s mediation where not empty; the record is kept.';
COMMENT ON COLUMN billing.sdr.relate_parent_resource IS
    'Parent resource.';
COMMENT ON COLUMN billing.sdr.relate_root_resource IS
    'Root resource.';
COMMENT ON COLUMN billing.sdr.extra IS
    'Every field that no document names, by the vendor''s key; NULL where there is none.';

-- +goose StatementBegin
CREATE FUNCTION sdr_sync.ensure_partition(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day CONSTANT date := date_trunc('month', month)::date;
    next_month CONSTANT date := (date_trunc('month', month) + interval '1 month')::date;
    name CONSTANT text := 'sdr_' || to_char(first_day, 'YYYY_MM');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('sdr_sync.ensure_partition', 0));
    IF EXISTS (SELECT FROM sdr_sync.archived_month WHERE usage_month = first_day) THEN
        RAISE EXCEPTION 'usage month % is archived, and a window to be published has records of it', to_char(first_day, 'YYYY-MM')
            USING HINT = format('As sdr_sync_owner: SELECT sdr_sync.restore_month(%L);', first_day);
    END IF;
    IF to_regclass(format('billing.%I', name)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- The check spares ATTACH the scan; ATTACH, unlike CREATE ... PARTITION OF, lets readers of the parent go on.
    EXECUTE format('CREATE TABLE billing.%I (LIKE billing.sdr INCLUDING ALL, CHECK (usage_date >= %L AND usage_date < %L))',
        name, first_day, next_month);
    EXECUTE format('COMMENT ON TABLE billing.%I IS %L', name, to_char(first_day, '"Usage month "YYYY-MM" of billing.sdr."'));
    EXECUTE format('ALTER TABLE billing.sdr ATTACH PARTITION billing.%I FOR VALUES FROM (%L) TO (%L)', name, first_day, next_month);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sdr_sync.ensure_partition(date) IS
    'Creates and attaches the partition of billing.sdr for a usage month, if it is missing, without locking readers out.';
REVOKE ALL ON FUNCTION sdr_sync.ensure_partition(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sdr_sync.ensure_partition(date) TO sdr_sync_writer;

CREATE TABLE sdr_sync.archived_month (
    usage_month date PRIMARY KEY,
    archived_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sdr_sync.archived_month IS 'Usage months whose partition is detached from billing.sdr; their Parquet files and daily sums stay.';
COMMENT ON COLUMN sdr_sync.archived_month.usage_month IS 'First day of the month.';
COMMENT ON COLUMN sdr_sync.archived_month.archived_at IS 'When it was archived.';

-- Archiving is the owner's: nobody else may take records away from readers.
-- +goose StatementBegin
CREATE FUNCTION sdr_sync.archive_month(month date) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    first_day CONSTANT date := date_trunc('month', month)::date;
    next_month CONSTANT date := (date_trunc('month', month) + interval '1 month')::date;
    name CONSTANT text := 'sdr_' || to_char(first_day, 'YYYY_MM');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('sdr_sync.ensure_partition', 0));
    -- Readers queue behind a lock that waits, so it waits for two seconds and no longer.
    EXECUTE format('ALTER TABLE billing.sdr DETACH PARTITION billing.%I', name);
    IF EXISTS (SELECT FROM sdr_sync.partition WHERE stream = 'sdr' AND from_date >= first_day AND from_date < next_month AND dirty_seq > exported_seq) THEN
        RAISE EXCEPTION 'usage month % has records that are not in Parquet yet', to_char(first_day, 'YYYY-MM') USING HINT = 'Run: sdr-sync export';
    END IF;
    INSERT INTO sdr_sync.archived_month (usage_month) VALUES (first_day);
    RETURN format('billing.%I', name);
END
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION sdr_sync.restore_month(month date) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day CONSTANT date := date_trunc('month', month)::date;
    next_month CONSTANT date := (date_trunc('month', month) + interval '1 month')::date;
    name CONSTANT text := 'sdr_' || to_char(first_day, 'YYYY_MM');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('sdr_sync.ensure_partition', 0));
    DELETE FROM sdr_sync.archived_month WHERE usage_month = first_day;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'usage month % is not archived', to_char(first_day, 'YYYY-MM');
    END IF;
    EXECUTE format('ALTER TABLE billing.sdr ATTACH PARTITION billing.%I FOR VALUES FROM (%L) TO (%L)', name, first_day, next_month);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sdr_sync.archive_month(date) IS
    'Detaches a usage month from billing.sdr, once all of it is in Parquet, and returns the table that now stands alone.';
COMMENT ON FUNCTION sdr_sync.restore_month(date) IS 'Attaches an archived usage month again; its table must be there, with all its rows.';
REVOKE ALL ON FUNCTION sdr_sync.archive_month(date), sdr_sync.restore_month(date) FROM PUBLIC;
GRANT SELECT ON sdr_sync.archived_month TO sdr_sync_writer;

CREATE TABLE sdr_sync.usage_rollup (
    window_id bigint NOT NULL REFERENCES sdr_sync.window,
    usage_date date NOT NULL,
    site text NOT NULL,
    region_code text,
    domain_id text,
    project_id text,
    enterprise_project_id text,
    cloud_service_type_code text,
    resource_type_code text,
    resource_spec_code text,
    accumulate_factor_name text,
    record_type text,
    records bigint NOT NULL,
    missing_amounts bigint NOT NULL,
    accumulate_factor_value numeric NOT NULL
);
CREATE INDEX usage_rollup_window ON sdr_sync.usage_rollup (window_id);
CREATE INDEX usage_rollup_date ON sdr_sync.usage_rollup (usage_date);
COMMENT ON TABLE sdr_sync.usage_rollup IS
    'Each window''s own share of the daily sums, replaced by the transaction that publishes the window; billing.usage_daily adds them up.';

CREATE VIEW billing.usage_daily AS
SELECT usage_date, site, region_code, domain_id, project_id, enterprise_project_id, cloud_service_type_code, resource_type_code,
    resource_spec_code, accumulate_factor_name, record_type,
    sum(records)::bigint AS records,
    sum(missing_amounts)::bigint AS missing_amounts,
    sum(accumulate_factor_value) AS accumulate_factor_value
FROM sdr_sync.usage_rollup
GROUP BY usage_date, site, region_code, domain_id, project_id, enterprise_project_id, cloud_service_type_code, resource_type_code,
    resource_spec_code, accumulate_factor_name, record_type;
COMMENT ON VIEW billing.usage_daily IS
    'Exact daily sums of billing.sdr. Never sum across accumulate_factor_name. Corrections (record_type 30) stand in rows of their own.';
COMMENT ON COLUMN sdr_sync.usage_rollup.window_id IS 'Window whose share this is.';
COMMENT ON COLUMN sdr_sync.usage_rollup.usage_date IS 'Usage date in the source time zone.';
COMMENT ON COLUMN sdr_sync.usage_rollup.site IS 'Site (hcso_id).';
COMMENT ON COLUMN sdr_sync.usage_rollup.region_code IS 'Region of the resources.';
COMMENT ON COLUMN sdr_sync.usage_rollup.domain_id IS 'Tenant account.';
COMMENT ON COLUMN sdr_sync.usage_rollup.project_id IS 'Project.';
COMMENT ON COLUMN sdr_sync.usage_rollup.enterprise_project_id IS 'Enterprise project; empty and 0 both mean none.';
COMMENT ON COLUMN sdr_sync.usage_rollup.cloud_service_type_code IS 'Cloud service.';
COMMENT ON COLUMN sdr_sync.usage_rollup.resource_type_code IS 'Resource type.';
COMMENT ON COLUMN sdr_sync.usage_rollup.resource_spec_code IS 'Specification.';
COMMENT ON COLUMN sdr_sync.usage_rollup.accumulate_factor_name IS 'What was metered.';
COMMENT ON COLUMN sdr_sync.usage_rollup.record_type IS '20 for normal records, 30 for corrections.';
COMMENT ON COLUMN sdr_sync.usage_rollup.records IS 'How many records.';
COMMENT ON COLUMN sdr_sync.usage_rollup.missing_amounts IS 'How many of them came without an amount.';
COMMENT ON COLUMN sdr_sync.usage_rollup.accumulate_factor_value IS 'Exact sum of the amounts, in the unit of the factor.';
COMMENT ON COLUMN billing.usage_daily.usage_date IS 'Usage date in the source time zone.';
COMMENT ON COLUMN billing.usage_daily.site IS 'Site (hcso_id).';
COMMENT ON COLUMN billing.usage_daily.region_code IS 'Region of the resources.';
COMMENT ON COLUMN billing.usage_daily.domain_id IS 'Tenant account.';
COMMENT ON COLUMN billing.usage_daily.project_id IS 'Project.';
COMMENT ON COLUMN billing.usage_daily.enterprise_project_id IS 'Enterprise project; empty and 0 both mean none.';
COMMENT ON COLUMN billing.usage_daily.cloud_service_type_code IS 'Cloud service.';
COMMENT ON COLUMN billing.usage_daily.resource_type_code IS 'Resource type.';
COMMENT ON COLUMN billing.usage_daily.resource_spec_code IS 'Specification.';
COMMENT ON COLUMN billing.usage_daily.accumulate_factor_name IS 'What was metered.';
COMMENT ON COLUMN billing.usage_daily.record_type IS '20 for normal records, 30 for corrections.';
COMMENT ON COLUMN billing.usage_daily.records IS 'How many records.';
COMMENT ON COLUMN billing.usage_daily.missing_amounts IS 'How many of them came without an amount.';
COMMENT ON COLUMN billing.usage_daily.accumulate_factor_value IS 'Exact sum of the amounts, in the unit of the factor.';

GRANT SELECT ON billing.sdr, billing.usage_daily TO sdr_sync_reader;
GRANT INSERT, DELETE ON billing.sdr TO sdr_sync_writer;
GRANT SELECT, INSERT, DELETE ON sdr_sync.usage_rollup TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP VIEW billing.usage_daily;
DROP TABLE sdr_sync.usage_rollup, sdr_sync.archived_month;
DROP FUNCTION sdr_sync.ensure_partition(date), sdr_sync.archive_month(date), sdr_sync.restore_month(date);
DROP TABLE billing.sdr;
