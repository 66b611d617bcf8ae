-- +goose Up
-- Three roles: the owner holds every object, the writer runs the program, the reader queries. They belong to the whole cluster, so they
-- may be there already, or another database's migration may be creating them right now.
-- +goose StatementBegin
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['sdr_sync_owner', 'sdr_sync_writer', 'sdr_sync_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % is missing and % may not create it', wanted, current_user
                        USING HINT = format('Run as a superuser: CREATE ROLE %I NOLOGIN; GRANT sdr_sync_owner TO %I;', wanted, current_user);
            END;
        END IF;
    END LOOP;
    -- From version 16 on, who creates a role is a member of it but may not act as it.
    IF NOT pg_has_role(current_user, 'sdr_sync_owner', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
        BEGIN
            EXECUTE format('GRANT sdr_sync_owner TO %I', current_user);
        EXCEPTION
            WHEN unique_violation OR internal_error THEN NULL; -- "tuple concurrently updated": another database's migration did it
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION '% may not act as sdr_sync_owner', current_user
                    USING HINT = format('Run as a superuser: GRANT sdr_sync_owner TO %I;', current_user);
        END;
    END IF;
    -- Temporary tables carry a window's changes; PUBLIC may have lost the right to make them.
    IF NOT has_database_privilege('sdr_sync_writer', current_database(), 'TEMPORARY') THEN
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO sdr_sync_writer', current_database());
    END IF;
    IF NOT pg_has_role('sdr_sync_writer', 'sdr_sync_reader', 'MEMBER') THEN
        BEGIN
            GRANT sdr_sync_reader TO sdr_sync_writer;
        EXCEPTION
            WHEN unique_violation OR internal_error THEN NULL; -- likewise
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'sdr_sync_writer is no member of sdr_sync_reader, and % may not make it one', current_user
                    USING HINT = 'Run as a superuser: GRANT sdr_sync_reader TO sdr_sync_writer;';
        END;
    END IF;
END
$$;
-- +goose StatementEnd

CREATE SCHEMA IF NOT EXISTS sdr_sync;
ALTER SCHEMA sdr_sync OWNER TO sdr_sync_owner;
CREATE SCHEMA billing AUTHORIZATION sdr_sync_owner;
COMMENT ON SCHEMA sdr_sync IS 'sdr-sync''s own: the ledger of what was asked, fetched, published and exported, and the quarantine.';
COMMENT ON SCHEMA billing IS 'What analysts query: metering records and their daily sums.';
GRANT USAGE ON SCHEMA sdr_sync TO sdr_sync_writer;
GRANT USAGE ON SCHEMA billing TO sdr_sync_reader;

-- +goose Down
-- The schema sdr_sync stays: goose keeps its own table in it. The roles stay: other databases of the cluster may use them.
DROP SCHEMA billing;
