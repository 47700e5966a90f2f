SELECT run_id FROM query_table($table) ANTI JOIN in_runs USING (run_id) LIMIT 1
