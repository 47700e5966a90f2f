SELECT min(file_row_number) + 1, arg_min(wrong, file_row_number)
FROM (
    SELECT file_row_number, CASE
        WHEN schema_version <> $schema_version THEN 'column schema_version: it must be ' || $schema_version
        WHEN status NOT IN ('running', 'done', 'incomplete', 'interrupted') THEN 'column status: it is none of a run'
        WHEN NOT regexp_full_match(suite, '[A-Za-z0-9_.-]+') THEN 'column suite: it is no name of a suite'
        WHEN protocol = '' OR run_id = '' THEN 'columns run_id, protocol: they must not be empty'
        WHEN NOT isfinite(started_at) OR NOT isfinite(finished_at) THEN 'columns started_at, finished_at: no time'
    END AS wrong
    FROM in_runs
)
WHERE wrong IS NOT NULL
