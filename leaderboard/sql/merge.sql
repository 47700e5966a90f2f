-- name: merge
-- Several databases may have the same image under the same condition. It counts once: the row with most trials stays.
-- Within one database nothing exists twice, so nothing needs to be sorted.
CREATE TABLE superseded AS
SELECT file, entrant, degradation, level, image_id
FROM loaded
WHERE (SELECT min(file) < max(file) FROM loaded)
QUALIFY row_number() OVER (PARTITION BY entrant, degradation, level, image_id ORDER BY trials DESC, file) > 1;

CREATE TABLE image_index AS
SELECT board, image_id, (row_number() OVER (PARTITION BY board ORDER BY image_id) - 1)::INTEGER AS image
FROM (SELECT DISTINCT board, image_id FROM loaded JOIN entrant_board USING (entrant));

CREATE TABLE condition_index AS
SELECT board, degradation, level, max(trials) AS trials,
    (row_number() OVER (PARTITION BY board ORDER BY degradation <> 'none', degradation, level) - 1)::INTEGER AS condition
FROM loaded JOIN entrant_board USING (entrant)
GROUP BY board, degradation, level;

CREATE TABLE per_image AS
SELECT entrant, condition, image, l.label, l.trials, hit, changed, top5, nll
FROM loaded AS l
JOIN entrant_board USING (entrant)
JOIN image_index USING (board, image_id)
JOIN condition_index USING (board, degradation, level)
ANTI JOIN superseded AS s USING (file, entrant, degradation, level, image_id)
ORDER BY entrant;

DROP TABLE loaded;
