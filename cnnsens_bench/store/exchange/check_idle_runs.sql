SELECT run_id FROM in_runs ANTI JOIN entered USING (run_id) LIMIT 1
