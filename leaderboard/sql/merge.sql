-- name: merge
-- Several databases may have the same image under the same condition. It counts once: the row with most trials stays.
-- Within one database nothing exists twice, so nothing needs to be sorted.
CREATE TABLE superseded_rows AS
SELECT file, entrant, condition, image
FROM per_image
WHERE (SELECT min(file) < max(file) FROM per_image)
QUALIFY row_number() OVER (PARTITION BY entrant, condition, image ORDER BY trials DESC, file) > 1;

DELETE FROM per_image AS p USING superseded_rows AS s
WHERE (p.file, p.entrant, p.condition, p.image) = (s.file, s.entrant, s.condition, s.image);

CREATE TABLE superseded AS
SELECT file, entrant, degradation, level, image_id
FROM superseded_rows
JOIN entrant_board USING (entrant)
JOIN level_index USING (board, condition)
JOIN image_index USING (board, image);

DROP TABLE superseded_rows;

CREATE TABLE condition_index AS
SELECT board, degradation, level, max(trials) AS trials, condition
FROM per_image JOIN entrant_board USING (entrant) JOIN level_index USING (board, condition)
GROUP BY ALL;
