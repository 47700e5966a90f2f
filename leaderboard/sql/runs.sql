-- Times as text: as values they would need another library.
SELECT run_id, suite, protocol, status, strftime(started_at, '%Y-%m-%d %H:%M') AS started_at,
    config::VARCHAR AS config, environment::VARCHAR AS environment
FROM source.runs ORDER BY source.runs.started_at, run_id
