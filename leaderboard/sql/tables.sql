-- What is kept in memory of all databases: sums per image, never single predictions.
CREATE TABLE loaded (
    file INTEGER, entrant INTEGER, degradation VARCHAR, level DOUBLE, image_id VARCHAR, label INTEGER,
    trials BIGINT, hit DOUBLE, changed DOUBLE, top5 DOUBLE, nll DOUBLE
);
CREATE TABLE calibration (entrant INTEGER, degradation VARCHAR, level DOUBLE, bin INTEGER, gap DOUBLE, rows BIGINT);
CREATE TABLE names (dataset VARCHAR, image_id VARCHAR, class_name VARCHAR);
CREATE TABLE timings (entrant INTEGER, run_id VARCHAR, device VARCHAR, threads INTEGER, images BIGINT, seconds DOUBLE);
