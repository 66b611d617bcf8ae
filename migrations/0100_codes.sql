-- +goose Up
SET LOCAL ROLE sdr_sync_owner;

CREATE VIEW billing.subscription_current AS
SELECT id, resource_id, resource_name, region_code, cloud_service_type_code, service_type_name, resource_type_code, resource_type_name,
    resource_spec_code, product_spec_desc, spec_size, spec_size_measure_id, project_code, enterprise_project, product_id, main_resource_id,
    is_main_resource, status,
    CASE status WHEN 2 THEN 'provisioned' WHEN 3 THEN 'closed' WHEN 4 THEN 'frozen' WHEN 5 THEN 'expired' END AS status_name,
    valid_time, expire_time, next_operation_policy,
    CASE next_operation_policy
        WHEN 0 THEN 'grace period on expiry'
        WHEN 1 THEN 'pay-per-use on expiry'
        WHEN 2 THEN 'deleted on expiry'
        WHEN 3 THEN 'renewed automatically'
        WHEN 4 THEN 'frozen on expiry'
        WHEN 5 THEN 'deleted after the retention period'
    END AS next_operation_policy_name,
    next_operation_policy = 3 AS renews,
    update_time, valid_from, opened_reason, absent_since, extra
FROM billing.subscription
WHERE valid_to IS NULL;
COMMENT ON VIEW billing.subscription_current IS
    'Subscriptions that stand, one row each, with status and renewal in words; their history is in billing.subscription.';
COMMENT ON COLUMN billing.subscription_current.id IS 'Internal id of the provisioned resource; it tells subscriptions from one another.';
COMMENT ON COLUMN billing.subscription_current.resource_id IS 'Id that the cloud service gave the resource, such as server_id of an ECS.';
COMMENT ON COLUMN billing.subscription_current.resource_name IS 'Name of the resource.';
COMMENT ON COLUMN billing.subscription_current.region_code IS 'Region of the resource, such as cn-north-1.';
COMMENT ON COLUMN billing.subscription_current.cloud_service_type_code IS 'Cloud service, such as hws.service.type.ec2.';
COMMENT ON COLUMN billing.subscription_current.service_type_name IS 'Name of the cloud service; NULL under v1.';
COMMENT ON COLUMN billing.subscription_current.resource_type_code IS 'Resource type, such as hws.resource.type.vm.';
COMMENT ON COLUMN billing.subscription_current.resource_type_name IS 'Name of the resource type; NULL under v1.';
COMMENT ON COLUMN billing.subscription_current.resource_spec_code IS 'Specification, such as s3.medium.2.linux.';
COMMENT ON COLUMN billing.subscription_current.product_spec_desc IS 'Specification in words; NULL under v1.';
COMMENT ON COLUMN billing.subscription_current.spec_size IS 'Size of a resource that has one, such as a disk or a bandwidth; NULL under v1.';
COMMENT ON COLUMN billing.subscription_current.spec_size_measure_id IS 'Unit of spec_size; see billing.measure_unit. NULL under v1.';
COMMENT ON COLUMN billing.subscription_current.project_code IS 'Project of the resource.';
COMMENT ON COLUMN billing.subscription_current.enterprise_project IS 'Enterprise project as an object with id and name; NULL under v1.';
COMMENT ON COLUMN billing.subscription_current.product_id IS 'Product that was bought.';
COMMENT ON COLUMN billing.subscription_current.main_resource_id IS 'resource_id of the primary resource that this one belongs to.';
COMMENT ON COLUMN billing.subscription_current.is_main_resource IS '1 for a primary resource, 0 for an attached one.';
COMMENT ON COLUMN billing.subscription_current.status IS '2 provisioned, 3 closed, 4 frozen, 5 expired; other documents number them otherwise, so other values are kept as they are.';
COMMENT ON COLUMN billing.subscription_current.status_name IS 'Status in a word; NULL for a number that no document names.';
COMMENT ON COLUMN billing.subscription_current.valid_time IS 'When the resource took effect.';
COMMENT ON COLUMN billing.subscription_current.expire_time IS 'When the resource expires.';
COMMENT ON COLUMN billing.subscription_current.next_operation_policy IS 'What happens on expiry. 0 grace period, 1 pay-per-use, 2 deleted at once, 3 renewed automatically, 4 frozen, 5 deleted after the retention period; only 3 renews.';
COMMENT ON COLUMN billing.subscription_current.next_operation_policy_name IS 'What happens on expiry, in words.';
COMMENT ON COLUMN billing.subscription_current.renews IS 'Whether it is renewed automatically.';
COMMENT ON COLUMN billing.subscription_current.update_time IS 'When the subscription was last updated; NULL under v1.';
COMMENT ON COLUMN billing.subscription_current.valid_from IS 'When the pull began that first had this version.';
COMMENT ON COLUMN billing.subscription_current.opened_reason IS 'Why the version began: appeared, changed, or reappeared after it was gone.';
COMMENT ON COLUMN billing.subscription_current.absent_since IS 'When the pull began that first lacked the row, while the next complete pull has yet to confirm that it is gone.';
COMMENT ON COLUMN billing.subscription_current.extra IS 'Every field that no document names, by the vendor''s key; NULL where there is none.';

-- What a user says of codes that the vendor's dictionaries leave open.
CREATE TABLE sdr_sync.code_name (
    kind text NOT NULL CHECK (kind IN ('service_type', 'resource_type', 'usage_type', 'measure_unit')),
    code text NOT NULL,
    service_type_code text NOT NULL DEFAULT '',
    name_en text,
    name_zh text,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, code, service_type_code)
);
COMMENT ON TABLE sdr_sync.code_name IS 'Names of codes from the user''s own CSV (sdr-sync dictionary load); they stand where the vendor gives none.';
COMMENT ON COLUMN sdr_sync.code_name.kind IS 'What the code is of: service_type, resource_type, usage_type or measure_unit.';
COMMENT ON COLUMN sdr_sync.code_name.code IS 'The code as records have it.';
COMMENT ON COLUMN sdr_sync.code_name.service_type_code IS 'Cloud service that it is meant for; empty for any.';
COMMENT ON COLUMN sdr_sync.code_name.name_en IS 'English name.';
COMMENT ON COLUMN sdr_sync.code_name.name_zh IS 'Chinese name.';
COMMENT ON COLUMN sdr_sync.code_name.loaded_at IS 'When the file was loaded.';

CREATE VIEW billing.service_type AS
WITH vendor AS (
    SELECT service_type_code,
        max(service_type_name) FILTER (WHERE language = 'en_US') AS name_en,
        max(service_type_name) FILTER (WHERE language = 'zh_CN') AS name_zh,
        max(abbreviation) AS abbreviation
    FROM billing.service_type_name GROUP BY service_type_code)
SELECT coalesce(v.service_type_code, u.code) AS service_type_code, coalesce(v.name_en, u.name_en) AS name_en,
    coalesce(v.name_zh, u.name_zh) AS name_zh, v.abbreviation
FROM vendor v FULL JOIN (SELECT * FROM sdr_sync.code_name WHERE kind = 'service_type') u ON u.code = v.service_type_code;
COMMENT ON VIEW billing.service_type IS 'Cloud services, one row per code, with their names in both languages.';
COMMENT ON COLUMN billing.service_type.service_type_code IS 'Code, as cloud_service_type_code in records.';
COMMENT ON COLUMN billing.service_type.name_en IS 'English name.';
COMMENT ON COLUMN billing.service_type.name_zh IS 'Chinese name.';
COMMENT ON COLUMN billing.service_type.abbreviation IS 'Abbreviation that the vendor uses.';

-- A resource type stands under each service that uses it. Both dictionaries are asked; the one by service knows more services.
CREATE VIEW billing.resource_type AS
WITH listed AS (
    SELECT service_type_code, resource_type_code, language, name, description, product_owner_service FROM billing.service_resource
    UNION ALL
    SELECT coalesce(n.service_type_code, ''), n.resource_type_code, n.language, n.resource_type_name, n.resource_type_desc, n.service_type_code
    FROM billing.resource_type_name n
    WHERE NOT EXISTS (
        SELECT FROM billing.service_resource s
        WHERE s.service_type_code = n.service_type_code AND s.resource_type_code = n.resource_type_code AND s.language = n.language)),
vendor AS (
    SELECT service_type_code, resource_type_code,
        max(name) FILTER (WHERE language = 'en_US') AS name_en,
        max(name) FILTER (WHERE language = 'zh_CN') AS name_zh,
        max(description) FILTER (WHERE language = 'en_US') AS description_en,
        max(description) FILTER (WHERE language = 'zh_CN') AS description_zh,
        max(product_owner_service) AS product_owner_service
    FROM listed GROUP BY service_type_code, resource_type_code)
SELECT coalesce(v.service_type_code, u.service_type_code) AS service_type_code, coalesce(v.resource_type_code, u.code) AS resource_type_code,
    coalesce(v.name_en, u.name_en) AS name_en, coalesce(v.name_zh, u.name_zh) AS name_zh, v.description_en, v.description_zh,
    v.product_owner_service
FROM vendor v FULL JOIN (SELECT * FROM sdr_sync.code_name WHERE kind = 'resource_type') u
    ON u.code = v.resource_type_code AND u.service_type_code = v.service_type_code;
COMMENT ON VIEW billing.resource_type IS 'Resource types by cloud service, one row per pair of codes, with their names in both languages. Join on both codes.';
COMMENT ON COLUMN billing.resource_type.service_type_code IS 'Service that was asked for, as cloud_service_type_code in records; empty for names of the user''s that are meant for any.';
COMMENT ON COLUMN billing.resource_type.resource_type_code IS 'Code, as resource_type_code in records.';
COMMENT ON COLUMN billing.resource_type.name_en IS 'English name.';
COMMENT ON COLUMN billing.resource_type.name_zh IS 'Chinese name.';
COMMENT ON COLUMN billing.resource_type.description_en IS 'English description.';
COMMENT ON COLUMN billing.resource_type.description_zh IS 'Chinese description.';
COMMENT ON COLUMN billing.resource_type.product_owner_service IS 'Service that the resource type belongs to, which may be another than uses it.';

CREATE VIEW billing.usage_type AS
WITH vendor AS (
    SELECT code AS usage_type_code, coalesce(resource_type_code, '') AS resource_type_code, coalesce(service_type_code, '') AS service_type_code,
        max(name) FILTER (WHERE language = 'en_US') AS name_en,
        max(name) FILTER (WHERE language = 'zh_CN') AS name_zh
    FROM billing.usage_type_name GROUP BY 1, 2, 3)
SELECT coalesce(v.usage_type_code, u.code) AS usage_type_code, coalesce(v.resource_type_code, '') AS resource_type_code,
    coalesce(v.service_type_code, u.service_type_code) AS service_type_code, coalesce(v.name_en, u.name_en) AS name_en,
    coalesce(v.name_zh, u.name_zh) AS name_zh
FROM vendor v FULL JOIN (SELECT * FROM sdr_sync.code_name WHERE kind = 'usage_type') u
    ON u.code = v.usage_type_code AND u.service_type_code = v.service_type_code;
COMMENT ON VIEW billing.usage_type IS 'What is metered, by cloud service and resource type, with its name in both languages. Compare codes with accumulate_factor_name without case.';
COMMENT ON COLUMN billing.usage_type.usage_type_code IS 'Code, as accumulate_factor_name in records but for case.';
COMMENT ON COLUMN billing.usage_type.resource_type_code IS 'Resource type that is metered so; empty for names of the user''s.';
COMMENT ON COLUMN billing.usage_type.service_type_code IS 'Cloud service; empty for names of the user''s that are meant for any.';
COMMENT ON COLUMN billing.usage_type.name_en IS 'English name.';
COMMENT ON COLUMN billing.usage_type.name_zh IS 'Chinese name.';

CREATE VIEW billing.measure_unit AS
WITH vendor AS (
    SELECT measure_id,
        max(measure_name) FILTER (WHERE language = 'en_US') AS name_en,
        max(measure_name) FILTER (WHERE language = 'zh_CN') AS name_zh,
        max(abbreviation) AS abbreviation, max(measure_type) AS measure_type
    FROM billing.measure_unit_name GROUP BY measure_id)
SELECT coalesce(v.measure_id::text, u.code) AS measure_id, coalesce(v.name_en, u.name_en) AS name_en, coalesce(v.name_zh, u.name_zh) AS name_zh,
    v.abbreviation, v.measure_type
FROM vendor v FULL JOIN (SELECT * FROM sdr_sync.code_name WHERE kind = 'measure_unit') u ON u.code = v.measure_id::text;
COMMENT ON VIEW billing.measure_unit IS 'Units of measurement, one row per id, with their names in both languages.';
COMMENT ON COLUMN billing.measure_unit.measure_id IS 'Id, as spec_size_measure_id in subscriptions.';
COMMENT ON COLUMN billing.measure_unit.name_en IS 'English name.';
COMMENT ON COLUMN billing.measure_unit.name_zh IS 'Chinese name.';
COMMENT ON COLUMN billing.measure_unit.abbreviation IS 'Sign of the unit.';
COMMENT ON COLUMN billing.measure_unit.measure_type IS 'Kind of quantity; 2 is time, 3 is traffic.';

CREATE VIEW billing.unmapped_codes AS
WITH seen AS (
    SELECT 'service_type' AS kind, cloud_service_type_code AS code, '' AS service_type_code, records, 0 AS subscriptions FROM billing.usage_daily
    UNION ALL SELECT 'service_type', cloud_service_type_code, '', 0, 1 FROM billing.subscription_current
    UNION ALL SELECT 'resource_type', resource_type_code, cloud_service_type_code, records, 0 FROM billing.usage_daily
    UNION ALL SELECT 'resource_type', resource_type_code, cloud_service_type_code, 0, 1 FROM billing.subscription_current
    UNION ALL SELECT 'usage_type', accumulate_factor_name, cloud_service_type_code, records, 0 FROM billing.usage_daily
    UNION ALL SELECT 'measure_unit', spec_size_measure_id::text, '', 0, 1 FROM billing.subscription_current),
codes AS (
    SELECT kind, code, coalesce(service_type_code, '') AS service_type_code, sum(records)::bigint AS records, sum(subscriptions)::bigint AS subscriptions
    FROM seen WHERE code <> '' GROUP BY 1, 2, 3)
SELECT kind, code, service_type_code, records, subscriptions
FROM codes c
WHERE NOT EXISTS (SELECT FROM billing.service_type n
        WHERE c.kind = 'service_type' AND n.service_type_code = c.code AND coalesce(n.name_en, n.name_zh) IS NOT NULL)
    AND NOT EXISTS (SELECT FROM billing.resource_type n
        WHERE c.kind = 'resource_type' AND n.resource_type_code = c.code AND n.service_type_code IN (c.service_type_code, '') AND coalesce(n.name_en, n.name_zh) IS NOT NULL)
    AND NOT EXISTS (SELECT FROM billing.usage_type n
        WHERE c.kind = 'usage_type' AND lower(n.usage_type_code) = lower(c.code) AND n.service_type_code IN (c.service_type_code, '') AND coalesce(n.name_en, n.name_zh) IS NOT NULL)
    AND NOT EXISTS (SELECT FROM billing.measure_unit n
        WHERE c.kind = 'measure_unit' AND n.measure_id = c.code AND coalesce(n.name_en, n.name_zh) IS NOT NULL);
COMMENT ON VIEW billing.unmapped_codes IS 'Codes of metering records and subscriptions that no dictionary and no file of the user''s names.';
COMMENT ON COLUMN billing.unmapped_codes.kind IS 'service_type, resource_type, usage_type or measure_unit.';
COMMENT ON COLUMN billing.unmapped_codes.code IS 'The code as records have it.';
COMMENT ON COLUMN billing.unmapped_codes.service_type_code IS 'Cloud service under which it was seen; empty where that does not matter.';
COMMENT ON COLUMN billing.unmapped_codes.records IS 'Metering records with it.';
COMMENT ON COLUMN billing.unmapped_codes.subscriptions IS 'Subscriptions with it.';

GRANT SELECT ON billing.subscription_current, billing.service_type, billing.resource_type, billing.usage_type, billing.measure_unit,
    billing.unmapped_codes TO sdr_sync_reader;
GRANT SELECT, INSERT, DELETE ON sdr_sync.code_name TO sdr_sync_writer;
RESET ROLE;

-- +goose Down
DROP VIEW billing.unmapped_codes, billing.measure_unit, billing.usage_type, billing.resource_type, billing.service_type, billing.subscription_current;
DROP TABLE sdr_sync.code_name;
