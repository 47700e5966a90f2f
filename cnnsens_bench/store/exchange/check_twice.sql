-- Hashes first: only rows that share one are compared, so that ten million rows need not be held.
WITH keyed AS (
    SELECT hash(protocol, dataset, image_id, model, defense, degradation, level, trial) AS hashed, p.*, protocol
    FROM in_predictions AS p JOIN in_runs USING (run_id)
),
alike AS MATERIALIZED (
    SELECT hash(protocol, dataset, image_id, model, defense, degradation, level, trial) AS hashed
    FROM in_predictions JOIN in_runs USING (run_id)
    GROUP BY hashed HAVING count(*) > 1
)
SELECT image_id || ' of ' || dataset || ', ' || model || ', ' || defense || ', ' || degradation || ' ' || level || ', trial ' || trial
FROM keyed SEMI JOIN alike USING (hashed)
GROUP BY protocol, dataset, image_id, model, defense, degradation, level, trial
HAVING count(*) > 1 LIMIT 1
