-- A run that has gone on since it was brought in is told so.
INSERT INTO runs BY NAME
SELECT <columns> FROM in_runs
ON CONFLICT (run_id) DO UPDATE SET status = excluded.status, finished_at = excluded.finished_at
WHERE excluded.finished_at > coalesce(finished_at, '-infinity'::TIMESTAMPTZ)
