INSERT INTO runs BY NAME
SELECT $run_id AS run_id, $suite AS suite, $schema_version AS schema_version, $protocol AS protocol,
    'running' AS status, now() AS started_at, $config AS config, $environment AS environment
ON CONFLICT (run_id) DO UPDATE SET status = 'running', finished_at = NULL;
