SELECT entrant, condition, sum(abs(gap)) / sum(rows) AS ece
FROM (SELECT entrant, degradation, level, bin, sum(gap) AS gap, sum(rows) AS rows FROM calibration GROUP BY ALL)
JOIN entrant_board USING (entrant)
JOIN condition_index USING (board, degradation, level)
GROUP BY ALL
