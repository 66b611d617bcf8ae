-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

-- A list without time has one window and one Parquet file: the whole of it.
ALTER TABLE sdr_sync.window DROP CONSTRAINT window_unit_check, ADD CONSTRAINT window_unit_check CHECK (unit IN ('month', 'day', 'whole'));
ALTER TABLE sdr_sync.job DROP CONSTRAINT job_unit_check, ADD CONSTRAINT job_unit_check CHECK (unit IN ('month', 'day', 'whole'));
ALTER TABLE sdr_sync.partition DROP CONSTRAINT partition_unit_check, ADD CONSTRAINT partition_unit_check CHECK (unit IN ('month', 'day', 'whole'));
ALTER TABLE sdr_sync.job ADD COLUMN changes jsonb;

COMMENT ON TABLE sdr_sync.window IS 'Published windows: half-open ranges of file dates, of event dates for events, or the whole of a list; the unit of query job, commit and replacement.';
COMMENT ON COLUMN sdr_sync.window.window_id IS 'Number of the window; stands in every metering record and event that it published.';
COMMENT ON COLUMN sdr_sync.window.stream IS 'Stream, such as sdr or subscriptions.';
COMMENT ON COLUMN sdr_sync.window.site IS 'Site (hcso_id) of the scope; tenant for lists, which have none.';
COMMENT ON COLUMN sdr_sync.window.unit IS 'month, day, or whole for a list that is read whole.';
COMMENT ON COLUMN sdr_sync.window.from_date IS 'First file date or event date.';
COMMENT ON COLUMN sdr_sync.window.to_date IS 'Date after the last one; moves only when the window is published.';
COMMENT ON COLUMN sdr_sync.window.records IS 'Records that it holds in the stream''s table; of a history, rows that stand.';
COMMENT ON COLUMN sdr_sync.window.missing_amounts IS 'Metering records among them whose amount the vendor did not send.';
COMMENT ON COLUMN sdr_sync.window.usage_months IS 'Usage or event months in which its records stand.';
COMMENT ON COLUMN sdr_sync.window.checked_at IS 'When the vendor was last asked and gave the same content or a new generation; for a list that is read whole, billing.snapshot_log says it.';
COMMENT ON COLUMN sdr_sync.job.stream IS 'Stream, such as sdr or subscriptions.';
COMMENT ON COLUMN sdr_sync.job.site IS 'Site (hcso_id) of the scope; tenant for lists, which have none.';
COMMENT ON COLUMN sdr_sync.job.unit IS 'month, day, or whole for a list that is read whole.';
COMMENT ON COLUMN sdr_sync.job.from_date IS 'First file date or event date asked for.';
COMMENT ON COLUMN sdr_sync.job.to_date IS 'Date after the last one asked for.';
COMMENT ON TABLE sdr_sync.job IS 'Query jobs created at the vendor, saved before the first poll with their whole request; and pulls of lists.';
COMMENT ON COLUMN sdr_sync.job.job_id IS 'The vendor''s id of the job; of a list, our own.';
COMMENT ON COLUMN sdr_sync.job.changes IS 'Of a list that is read whole: how many rows appeared, changed, reappeared, disappeared, and were absent for the first time.';
COMMENT ON COLUMN sdr_sync.partition.stream IS 'Stream, such as sdr or subscriptions.';
COMMENT ON COLUMN sdr_sync.partition.site IS 'Site (hcso_id); tenant for lists, which have none.';
COMMENT ON COLUMN sdr_sync.partition.from_date IS 'First usage or event date of the partition; 1970-01-01 for a list that is read whole.';
COMMENT ON COLUMN sdr_sync.partition.unit IS 'month, day, or whole for a list that is read whole.';
COMMENT ON COLUMN sdr_sync.restatement.amounts IS 'Per factor: the exact sum before and after, where they differ; empty for events.';

-- Months of events come as those of metering records do.
DROP FUNCTION sdr_sync.ensure_partition(date);
-- +goose StatementBegin
CREATE FUNCTION sdr_sync.ensure_partition(parent text, month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first_day CONSTANT date := date_trunc('month', month)::date;
    next_month CONSTANT date := (date_trunc('month', month) + interval '1 month')::date;
    parent_name name;
    date_column name;
    partition_name text;
BEGIN
    SELECT c.relname, a.attname INTO parent_name, date_column
    FROM pg_class c JOIN pg_partitioned_table p ON p.partrelid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
    WHERE c.relnamespace = 'billing'::regnamespace AND 'billing.' || c.relname = parent AND p.partstrat = 'r' AND p.partnatts = 1
        AND a.atttypid = 'date'::regtype;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is no table of billing that is partitioned by date', quote_literal(parent);
    END IF;
    partition_name := parent_name || to_char(first_day, '_YYYY_MM');
    IF length(partition_name) > 63 THEN
        RAISE EXCEPTION 'the name % is too long for a partition', quote_literal(partition_name);
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('sdr_sync.ensure_partition', 0));
    IF parent_name = 'sdr' AND EXISTS (SELECT FROM sdr_sync.archived_month WHERE usage_month = first_day) THEN
        RAISE EXCEPTION 'usage month % is archived, and a window to be published has records of it', to_char(first_day, 'YYYY-MM')
            USING HINT = format('As sdr_sync_owner: SELECT sdr_sync.restore_month(%L);', first_day);
    END IF;
    IF to_regclass(format('billing.%I', partition_name)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- The check spares ATTACH the scan; ATTACH, unlike CREATE ... PARTITION OF, lets readers of the parent go on.
    EXECUTE format('CREATE TABLE billing.%I (LIKE billing.%I INCLUDING ALL, CHECK (%I >= %L AND %I < %L))',
        partition_name, parent_name, date_column, first_day, date_column, next_month);
    EXECUTE format('COMMENT ON TABLE billing.%I IS %L', partition_name,
        format('%s month %s of billing.%s.', CASE WHEN parent_name = 'sdr' THEN 'Usage' ELSE 'Event' END, to_char(first_day, 'YYYY-MM'), parent_name));
    EXECUTE format('ALTER TABLE billing.%I ATTACH PARTITION billing.%I FOR VALUES FROM (%L) TO (%L)',
        parent_name, partition_name, first_day, next_month);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sdr_sync.ensure_partition(text, date) IS
    'Creates and attaches the partition of a table of billing for a month, if it is missing, without locking readers out.';
REVOKE ALL ON FUNCTION sdr_sync.ensure_partition(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sdr_sync.ensure_partition(text, date) TO sdr_sync_writer;

CREATE VIEW billing.snapshot_log AS
SELECT stream, created_at AS taken_at, state, pages, records, quarantined,
    (changes ->> 'appeared')::bigint AS appeared,
    (changes ->> 'changed')::bigint AS changed,
    (changes ->> 'reappeared')::bigint AS reappeared,
    (changes ->> 'disappeared')::bigint AS disappeared,
    (changes ->> 'absent')::bigint AS absent,
    generation, finished_at, note, job_row
FROM sdr_sync.job WHERE unit = 'whole';
COMMENT ON VIEW billing.snapshot_log IS
    'Every pull of a list that is read whole, one row each. A row of a snapshot, or an open one of a history that is not absent, was last seen by the newest pull that is published or unchanged.';
COMMENT ON COLUMN billing.snapshot_log.stream IS 'Stream, such as subscriptions.';
COMMENT ON COLUMN billing.snapshot_log.taken_at IS 'When the pull began.';
COMMENT ON COLUMN billing.snapshot_log.state IS
    'published (it changed something), unchanged (it equals what stands), or why it counts for nothing: refused (too much is gone, or quarantined), failed, abandoned, moved (the list moved while it was read); open and landed are under way.';
COMMENT ON COLUMN billing.snapshot_log.pages IS 'Pages read.';
COMMENT ON COLUMN billing.snapshot_log.records IS 'Rows that could be normalised.';
COMMENT ON COLUMN billing.snapshot_log.quarantined IS 'Rows that could not.';
COMMENT ON COLUMN billing.snapshot_log.appeared IS 'Rows that are new. NULL unless published.';
COMMENT ON COLUMN billing.snapshot_log.changed IS 'Rows with another content than before.';
COMMENT ON COLUMN billing.snapshot_log.reappeared IS 'Rows of a history that were gone and are back.';
COMMENT ON COLUMN billing.snapshot_log.disappeared IS 'Rows that are gone; of a history, absent from this pull and the one before.';
COMMENT ON COLUMN billing.snapshot_log.absent IS 'Rows of a history that are absent for the first time; they stand until the next complete pull.';
COMMENT ON COLUMN billing.snapshot_log.generation IS 'Generation of the list that it became.';
COMMENT ON COLUMN billing.snapshot_log.finished_at IS 'When it ended.';
COMMENT ON COLUMN billing.snapshot_log.note IS 'Why it ended, in words.';
COMMENT ON COLUMN billing.snapshot_log.job_row IS 'Number of the pull.';
GRANT SELECT ON billing.snapshot_log TO sdr_sync_reader;
RESET ROLE;

-- +goose Down
DROP VIEW billing.snapshot_log;
-- The tables of the lists are gone; what the ledger says of them goes too.
DELETE FROM sdr_sync.quarantine WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream <> 'sdr');
DELETE FROM sdr_sync.restatement WHERE window_id IN (SELECT window_id FROM sdr_sync.window WHERE stream <> 'sdr');
DELETE FROM sdr_sync.window WHERE stream <> 'sdr';
DELETE FROM sdr_sync.job WHERE stream <> 'sdr';
DELETE FROM sdr_sync.partition WHERE stream <> 'sdr';
DELETE FROM sdr_sync.lease WHERE stream <> 'sdr';
ALTER TABLE sdr_sync.job DROP COLUMN changes;
ALTER TABLE sdr_sync.window DROP CONSTRAINT window_unit_check, ADD CONSTRAINT window_unit_check CHECK (unit IN ('month', 'day'));
ALTER TABLE sdr_sync.job DROP CONSTRAINT job_unit_check, ADD CONSTRAINT job_unit_check CHECK (unit IN ('month', 'day'));
ALTER TABLE sdr_sync.partition DROP CONSTRAINT partition_unit_check, ADD CONSTRAINT partition_unit_check CHECK (unit IN ('month', 'day'));
DROP FUNCTION sdr_sync.ensure_partition(text, date);
SET LOCAL ROLE sdr_sync_owner;
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
RESET ROLE;
