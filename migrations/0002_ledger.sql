-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

CREATE TABLE sdr_sync.pin (
    name text PRIMARY KEY,
    value text NOT NULL,
    pinned_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sdr_sync.pin IS 'Facts fixed at first use: one database belongs to one tenant, one lake, one reading of the clocks.';
COMMENT ON COLUMN sdr_sync.pin.name IS 'What is pinned: domain_id, lake_id, source_timezone, file_timezone, parquet_partition.';
COMMENT ON COLUMN sdr_sync.pin.value IS 'The value that later runs must agree with.';
COMMENT ON COLUMN sdr_sync.pin.pinned_at IS 'When it was pinned.';

CREATE TABLE sdr_sync.run (
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command text NOT NULL,
    program_version text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    exit_code integer,
    outcome text
);
COMMENT ON TABLE sdr_sync.run IS 'Executions of the program that may write. A run without finished_at is under way or was killed.';
COMMENT ON COLUMN sdr_sync.run.run_id IS 'Number of the run.';
COMMENT ON COLUMN sdr_sync.run.command IS 'Command and flags as typed; secrets are never flags.';
COMMENT ON COLUMN sdr_sync.run.program_version IS 'Version of sdr-sync.';
COMMENT ON COLUMN sdr_sync.run.host IS 'Host that ran it.';
COMMENT ON COLUMN sdr_sync.run.pid IS 'Process id on that host.';
COMMENT ON COLUMN sdr_sync.run.started_at IS 'When it began.';
COMMENT ON COLUMN sdr_sync.run.finished_at IS 'When it ended in an orderly way.';
COMMENT ON COLUMN sdr_sync.run.exit_code IS 'Its exit code.';
COMMENT ON COLUMN sdr_sync.run.outcome IS 'Its last sentence.';

CREATE SEQUENCE sdr_sync.lease_token;
CREATE TABLE sdr_sync.lease (
    stream text NOT NULL,
    site text NOT NULL,
    region text NOT NULL,
    token bigint NOT NULL,
    holder text NOT NULL,
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (stream, site, region)
);
COMMENT ON TABLE sdr_sync.lease IS 'Who may write a scope now. A holder whose token is no longer here can''t commit a publication.';
COMMENT ON COLUMN sdr_sync.lease.stream IS 'Stream of the scope.';
COMMENT ON COLUMN sdr_sync.lease.site IS 'Site (hcso_id) of the scope.';
COMMENT ON COLUMN sdr_sync.lease.region IS 'Region of the scope; empty means all regions.';
COMMENT ON COLUMN sdr_sync.lease.token IS 'Fencing token: rises with every acquisition.';
COMMENT ON COLUMN sdr_sync.lease.holder IS 'Process that holds the lease: host, boot, process namespace, pid and its start time.';
COMMENT ON COLUMN sdr_sync.lease.acquired_at IS 'When it was taken.';
COMMENT ON COLUMN sdr_sync.lease.expires_at IS 'After this another run may take it.';

CREATE TABLE sdr_sync.window (
    window_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream text NOT NULL,
    site text NOT NULL,
    region text NOT NULL,
    scope_key bigint NOT NULL GENERATED ALWAYS AS (hashtextextended(stream || '/' || site || '/' || region, 0)) STORED,
    unit text NOT NULL CHECK (unit IN ('month', 'day')),
    from_date date NOT NULL,
    to_date date NOT NULL,
    generation integer NOT NULL DEFAULT 0,
    records bigint NOT NULL DEFAULT 0,
    missing_amounts bigint NOT NULL DEFAULT 0,
    digest text NOT NULL DEFAULT repeat('0', 32),
    hash_version integer NOT NULL,
    quarantined bigint NOT NULL DEFAULT 0,
    quarantine_digest text NOT NULL DEFAULT repeat('0', 32),
    usage_months date[] NOT NULL DEFAULT '{}',
    unknown_fields jsonb,
    job_row bigint,
    job_created_at timestamptz,
    published_at timestamptz,
    checked_at timestamptz,
    retired_at timestamptz,
    CHECK (from_date < to_date),
    -- Windows of one scope never overlap. Ranges of one number stand in for equality, so that no extension is needed.
    CONSTRAINT window_no_overlap EXCLUDE USING gist (int8range(scope_key, scope_key, '[]') WITH &&, daterange(from_date, to_date) WITH &&)
        WHERE (retired_at IS NULL)
);
CREATE UNIQUE INDEX window_identity ON sdr_sync.window (stream, site, region, from_date) WHERE retired_at IS NULL;
COMMENT ON TABLE sdr_sync.window IS 'Published windows: half-open ranges of file dates, the unit of query job, commit and replacement.';
COMMENT ON COLUMN sdr_sync.window.window_id IS 'Number of the window; stands in every record that it published.';
COMMENT ON COLUMN sdr_sync.window.stream IS 'Stream, such as sdr.';
COMMENT ON COLUMN sdr_sync.window.site IS 'Site (hcso_id) of the scope.';
COMMENT ON COLUMN sdr_sync.window.region IS 'Region of the scope; empty means all regions.';
COMMENT ON COLUMN sdr_sync.window.scope_key IS 'Number made of stream, site and region for the exclusion constraint.';
COMMENT ON COLUMN sdr_sync.window.unit IS 'month or day.';
COMMENT ON COLUMN sdr_sync.window.from_date IS 'First file date.';
COMMENT ON COLUMN sdr_sync.window.to_date IS 'File date after the last one; moves only when the window is published.';
COMMENT ON COLUMN sdr_sync.window.generation IS 'How many times the window has been published.';
COMMENT ON COLUMN sdr_sync.window.records IS 'Records that it holds in billing.sdr.';
COMMENT ON COLUMN sdr_sync.window.missing_amounts IS 'Records among them whose amount the vendor did not send.';
COMMENT ON COLUMN sdr_sync.window.digest IS 'Sum of the records'' 128-bit hashes, 32 hex digits.';
COMMENT ON COLUMN sdr_sync.window.hash_version IS 'Version of the canonical bytes that were hashed.';
COMMENT ON COLUMN sdr_sync.window.quarantined IS 'Records in sdr_sync.quarantine.';
COMMENT ON COLUMN sdr_sync.window.quarantine_digest IS 'Sum of the hashes of the quarantined records as sent, 32 hex digits.';
COMMENT ON COLUMN sdr_sync.window.usage_months IS 'Usage months in which its records stand.';
COMMENT ON COLUMN sdr_sync.window.unknown_fields IS 'Fields that no document names, and in how many records each came.';
COMMENT ON COLUMN sdr_sync.window.job_row IS 'Job that fed the current generation.';
COMMENT ON COLUMN sdr_sync.window.job_created_at IS 'When the job that last answered for the window was created; decides whether the window is settled.';
COMMENT ON COLUMN sdr_sync.window.published_at IS 'When the current generation was published.';
COMMENT ON COLUMN sdr_sync.window.checked_at IS 'When the vendor was last asked and gave the same content or a new generation.';
COMMENT ON COLUMN sdr_sync.window.retired_at IS 'When other windows took its place (backfill --reslice).';

CREATE TABLE sdr_sync.job (
    job_row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES sdr_sync.run,
    stream text NOT NULL,
    site text NOT NULL,
    region text NOT NULL,
    unit text NOT NULL CHECK (unit IN ('month', 'day')),
    from_date date NOT NULL,
    to_date date NOT NULL,
    job_id text NOT NULL,
    request jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'landed', 'published', 'unchanged', 'refused', 'failed', 'forgotten', 'abandoned', 'moved')),
    progress integer NOT NULL DEFAULT 0,
    pages bigint NOT NULL DEFAULT 0,
    records bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    landed_bytes bigint NOT NULL DEFAULT 0,
    ready_at timestamptz,
    landed_at timestamptz,
    finished_at timestamptz,
    window_id bigint,
    generation integer,
    note text
);
CREATE INDEX job_by_window ON sdr_sync.job (stream, site, region, from_date, job_row);
CREATE INDEX job_live ON sdr_sync.job (state) WHERE state IN ('open', 'landed');
COMMENT ON TABLE sdr_sync.job IS 'Query jobs created at the vendor, saved before the first poll with their whole request.';
COMMENT ON COLUMN sdr_sync.job.job_row IS 'Number of the job; names its landing file.';
COMMENT ON COLUMN sdr_sync.job.run_id IS 'Run that created it.';
COMMENT ON COLUMN sdr_sync.job.stream IS 'Stream, such as sdr.';
COMMENT ON COLUMN sdr_sync.job.site IS 'Site (hcso_id) of the scope.';
COMMENT ON COLUMN sdr_sync.job.region IS 'Region of the scope; empty means all regions.';
COMMENT ON COLUMN sdr_sync.job.unit IS 'month or day.';
COMMENT ON COLUMN sdr_sync.job.from_date IS 'First file date asked for.';
COMMENT ON COLUMN sdr_sync.job.to_date IS 'File date after the last one asked for.';
COMMENT ON COLUMN sdr_sync.job.job_id IS 'The vendor''s id of the job.';
COMMENT ON COLUMN sdr_sync.job.request IS 'The request as sent; only an identical one may adopt the job.';
COMMENT ON COLUMN sdr_sync.job.created_at IS 'When it was created.';
COMMENT ON COLUMN sdr_sync.job.state IS 'open (polled or drained), landed, then its end: published, unchanged (same content as published), refused (shrink or quarantine), failed (at the vendor), forgotten (404), abandoned (deadline or age), moved (its results changed under us).';
COMMENT ON COLUMN sdr_sync.job.progress IS 'Progress at the last poll, percent.';
COMMENT ON COLUMN sdr_sync.job.pages IS 'Pages landed.';
COMMENT ON COLUMN sdr_sync.job.records IS 'Records that could be normalised.';
COMMENT ON COLUMN sdr_sync.job.quarantined IS 'Records that could not.';
COMMENT ON COLUMN sdr_sync.job.landed_bytes IS 'Size of its landing file.';
COMMENT ON COLUMN sdr_sync.job.ready_at IS 'When a poll first said success.';
COMMENT ON COLUMN sdr_sync.job.landed_at IS 'When its last page was landed.';
COMMENT ON COLUMN sdr_sync.job.finished_at IS 'When it reached its end.';
COMMENT ON COLUMN sdr_sync.job.window_id IS 'Window that it published or confirmed.';
COMMENT ON COLUMN sdr_sync.job.generation IS 'Generation that it published.';
COMMENT ON COLUMN sdr_sync.job.note IS 'Why it ended, in words.';

CREATE TABLE sdr_sync.quarantine (
    window_id bigint NOT NULL REFERENCES sdr_sync.window,
    raw_hash uuid NOT NULL,
    ordinal integer NOT NULL,
    job_row bigint NOT NULL,
    page integer NOT NULL,
    position integer NOT NULL,
    reason text NOT NULL,
    field text NOT NULL,
    detail text NOT NULL,
    raw bytea NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (window_id, raw_hash, ordinal)
);
COMMENT ON TABLE sdr_sync.quarantine IS 'Records that could not be normalised, as sent, with the reason. Replaced with their window.';
COMMENT ON COLUMN sdr_sync.quarantine.window_id IS 'Window whose job returned the record.';
COMMENT ON COLUMN sdr_sync.quarantine.raw_hash IS 'Hash of the record as sent.';
COMMENT ON COLUMN sdr_sync.quarantine.ordinal IS '0 for the first of these bytes in its window, 1 and up for exact twins.';
COMMENT ON COLUMN sdr_sync.quarantine.job_row IS 'Job that returned it.';
COMMENT ON COLUMN sdr_sync.quarantine.page IS 'Page of the job, from 1.';
COMMENT ON COLUMN sdr_sync.quarantine.position IS 'Place in the page, from 1.';
COMMENT ON COLUMN sdr_sync.quarantine.reason IS 'Why, as a code such as bad_time.';
COMMENT ON COLUMN sdr_sync.quarantine.field IS 'Field at fault, where there is one.';
COMMENT ON COLUMN sdr_sync.quarantine.detail IS 'Why, in words.';
COMMENT ON COLUMN sdr_sync.quarantine.raw IS 'The record exactly as sent.';
COMMENT ON COLUMN sdr_sync.quarantine.quarantined_at IS 'When it was quarantined.';

CREATE TABLE sdr_sync.partition (
    stream text NOT NULL,
    site text NOT NULL,
    from_date date NOT NULL,
    unit text NOT NULL CHECK (unit IN ('month', 'day')),
    dirty_seq bigint NOT NULL DEFAULT 1,
    exported_seq bigint NOT NULL DEFAULT 0,
    file_rows bigint NOT NULL DEFAULT 0,
    file_digest text NOT NULL DEFAULT '',
    file_bytes bigint NOT NULL DEFAULT 0,
    file_sha256 text NOT NULL DEFAULT '',
    exported_at timestamptz,
    PRIMARY KEY (stream, site, from_date)
);
COMMENT ON TABLE sdr_sync.partition IS 'Parquet partitions. One whose dirty_seq is above exported_seq is newer in Postgres than in its file.';
COMMENT ON COLUMN sdr_sync.partition.stream IS 'Stream, such as sdr.';
COMMENT ON COLUMN sdr_sync.partition.site IS 'Site (hcso_id).';
COMMENT ON COLUMN sdr_sync.partition.from_date IS 'First usage date of the partition.';
COMMENT ON COLUMN sdr_sync.partition.unit IS 'month or day.';
COMMENT ON COLUMN sdr_sync.partition.dirty_seq IS 'Rises with every publication that touched the partition.';
COMMENT ON COLUMN sdr_sync.partition.exported_seq IS 'dirty_seq that the file was read at.';
COMMENT ON COLUMN sdr_sync.partition.file_rows IS 'Rows in the file.';
COMMENT ON COLUMN sdr_sync.partition.file_digest IS 'Digest of the rows in the file, 32 hex digits.';
COMMENT ON COLUMN sdr_sync.partition.file_bytes IS 'Size of the file.';
COMMENT ON COLUMN sdr_sync.partition.file_sha256 IS 'SHA-256 of the file, hex.';
COMMENT ON COLUMN sdr_sync.partition.exported_at IS 'When the file was exported.';

CREATE TABLE sdr_sync.restatement (
    window_id bigint NOT NULL REFERENCES sdr_sync.window,
    generation integer NOT NULL,
    run_id bigint NOT NULL,
    job_row bigint NOT NULL,
    restated_at timestamptz NOT NULL DEFAULT now(),
    inserted bigint NOT NULL,
    deleted bigint NOT NULL,
    records_before bigint NOT NULL,
    records_after bigint NOT NULL,
    digest_before text NOT NULL,
    digest_after text NOT NULL,
    to_date_before date NOT NULL,
    to_date_after date NOT NULL,
    amounts jsonb NOT NULL,
    PRIMARY KEY (window_id, generation)
);
COMMENT ON TABLE sdr_sync.restatement IS 'Publications that changed what a window held before. Append only.';
COMMENT ON COLUMN sdr_sync.restatement.window_id IS 'Window that was published again.';
COMMENT ON COLUMN sdr_sync.restatement.generation IS 'Generation that it became.';
COMMENT ON COLUMN sdr_sync.restatement.run_id IS 'Run that published it.';
COMMENT ON COLUMN sdr_sync.restatement.job_row IS 'Job that fed it.';
COMMENT ON COLUMN sdr_sync.restatement.restated_at IS 'When.';
COMMENT ON COLUMN sdr_sync.restatement.inserted IS 'Records that came.';
COMMENT ON COLUMN sdr_sync.restatement.deleted IS 'Records that vanished.';
COMMENT ON COLUMN sdr_sync.restatement.records_before IS 'Records of the generation before.';
COMMENT ON COLUMN sdr_sync.restatement.records_after IS 'Records of this generation.';
COMMENT ON COLUMN sdr_sync.restatement.digest_before IS 'Digest of the generation before.';
COMMENT ON COLUMN sdr_sync.restatement.digest_after IS 'Digest of this generation.';
COMMENT ON COLUMN sdr_sync.restatement.to_date_before IS 'End of the window before; an open window grows.';
COMMENT ON COLUMN sdr_sync.restatement.to_date_after IS 'End of the window now.';
COMMENT ON COLUMN sdr_sync.restatement.amounts IS 'Per factor: the exact sum before and after, where they differ.';

GRANT SELECT ON sdr_sync.pin, sdr_sync.run, sdr_sync.lease, sdr_sync.window, sdr_sync.job, sdr_sync.quarantine, sdr_sync.partition,
    sdr_sync.restatement TO sdr_sync_writer;
GRANT INSERT ON sdr_sync.pin, sdr_sync.run, sdr_sync.lease, sdr_sync.window, sdr_sync.job, sdr_sync.quarantine, sdr_sync.partition,
    sdr_sync.restatement TO sdr_sync_writer;
GRANT UPDATE ON sdr_sync.pin, sdr_sync.run, sdr_sync.lease, sdr_sync.window, sdr_sync.job, sdr_sync.partition TO sdr_sync_writer;
GRANT DELETE ON sdr_sync.lease, sdr_sync.quarantine TO sdr_sync_writer;
GRANT USAGE ON SEQUENCE sdr_sync.lease_token TO sdr_sync_writer;
RESET ROLE;
-- Goose's own table belongs to whoever migrates; every run reads the schema version from it.
GRANT SELECT ON sdr_sync.goose_db_version TO sdr_sync_writer;

-- +goose Down
DROP TABLE sdr_sync.restatement, sdr_sync.partition, sdr_sync.quarantine, sdr_sync.job, sdr_sync.window, sdr_sync.lease, sdr_sync.run, sdr_sync.pin;
DROP SEQUENCE sdr_sync.lease_token;
