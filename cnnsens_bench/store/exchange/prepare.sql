-- Of the predictions that are looked at (views in_…), what several questions need.
CREATE TEMP TABLE entered AS
SELECT run_id, dataset, model, defense, max(architecture) AS architecture, count(*) AS predictions
FROM in_predictions GROUP BY run_id, dataset, model, defense;

CREATE TEMP TABLE seen AS
SELECT dataset, image_id, min(label) AS lowest, max(label) AS highest FROM in_predictions GROUP BY ALL;
