-- Two entrants on the same images and trials; a positive difference is the first one's.
SELECT condition, image, a.hit AS hit, b.hit AS reference_hit, a.trials
FROM per_image AS a JOIN per_image AS b USING (condition, image, trials)
WHERE a.entrant = $first AND b.entrant = $second
