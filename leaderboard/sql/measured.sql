-- What each entrant was measured under, and on how many images it was predicted.
SELECT entrant, list(DISTINCT condition ORDER BY condition) AS conditions,
    count(DISTINCT image) FILTER (hit IS NOT NULL) AS images
FROM per_image GROUP BY entrant
