-- Whether any image of the parts has predictions of the same network already, under any protocol: if not, there is
-- nothing to compare.
SELECT EXISTS (
    FROM predictions
    SEMI JOIN (SELECT DISTINCT dataset, image_id, model, defense FROM read_parquet($files)) AS incoming
        USING (dataset, image_id, model, defense)
);
