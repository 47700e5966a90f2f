-- Of each condition the least and the most trials of an image, over entrants: an entrant's own number is its most, for a
-- failure may take a trial of some image.
SELECT condition, min(trials) AS least, max(trials) AS most
FROM (
    SELECT entrant, condition, max(trials) AS trials
    FROM per_image JOIN entrant_board USING (entrant) WHERE board = $board GROUP BY ALL
)
GROUP BY condition
