-- name: schema
-- The tables of a results database. Their names and columns are a contract: other people's scripts use them.
-- A table may gain a column that can be NULL: write it as the table's last one, here. The schema of part files follows
-- this text, `Store.open` adds the column to databases that were made without it, and a part file without it is still
-- ingested; NULL stands in their rows. SCHEMA_VERSION is raised only when a column that is there changes its meaning.

CREATE TABLE IF NOT EXISTS runs (
    run_id VARCHAR PRIMARY KEY,
    suite VARCHAR NOT NULL,
    schema_version INTEGER NOT NULL,
    protocol VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    config JSON,
    environment JSON
);

CREATE TABLE IF NOT EXISTS images (
    dataset VARCHAR NOT NULL,
    split VARCHAR,
    image_id VARCHAR NOT NULL,
    uri VARCHAR,
    label INTEGER,
    class_name VARCHAR,
    box_x DOUBLE,
    box_y DOUBLE,
    box_w DOUBLE,
    box_h DOUBLE,
    width INTEGER,
    height INTEGER,
    hue_entropy DOUBLE,
    PRIMARY KEY (dataset, image_id)
);

CREATE TABLE IF NOT EXISTS models (
    model VARCHAR NOT NULL,
    architecture VARCHAR,
    source VARCHAR,
    dataset VARCHAR NOT NULL,
    defense VARCHAR NOT NULL,
    weights_sha256 VARCHAR,
    num_parameters BIGINT,
    input_size INTEGER,
    trained_by VARCHAR,
    -- How the network's library views an image; NULL where the network sees the image's box.
    view VARCHAR,
    -- The number of outputs that the network has; those that are no class of the data set are left out.
    outputs INTEGER,
    -- What outputs and classes are matched by: wnid, name, number or order; NULL for a network trained on the classes.
    matched_by VARCHAR,
    -- The number of the data set's classes, which is that of the outputs that are kept.
    classes INTEGER,
    PRIMARY KEY (model, dataset, defense)
);

-- There is no primary key: an index over hundreds of millions of rows would not fit into memory. The writer keeps rows
-- unique.
CREATE TABLE IF NOT EXISTS predictions (
    run_id VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    architecture VARCHAR,
    defense VARCHAR NOT NULL,
    degradation VARCHAR NOT NULL,
    level DOUBLE NOT NULL,
    trial INTEGER NOT NULL,
    label INTEGER,
    prediction INTEGER,
    confidence FLOAT,
    true_probability FLOAT,
    true_rank INTEGER,
    reference_logit FLOAT,
    reference_probability FLOAT
);

CREATE TABLE IF NOT EXISTS sensitivity (
    run_id VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    defense VARCHAR NOT NULL,
    output VARCHAR NOT NULL,
    value DOUBLE,
    grad_sq_norm DOUBLE,
    pepper_sum DOUBLE,
    pepper_sq_norm DOUBLE,
    shift_x DOUBLE,
    shift_y DOUBLE,
    margin DOUBLE,
    margin_grad_sq_norm DOUBLE,
    entropy DOUBLE
);

-- What each predictor expects under a condition: the mean and the standard deviation of the change of each output, and
-- the forward and backward passes that the answer costs.
CREATE TABLE IF NOT EXISTS sensitivity_predictions (
    run_id VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    defense VARCHAR NOT NULL,
    predictor VARCHAR NOT NULL,
    degradation VARCHAR NOT NULL,
    level DOUBLE NOT NULL,
    output VARCHAR NOT NULL,
    passes INTEGER,
    mean_change DOUBLE,
    deviation DOUBLE
);

CREATE TABLE IF NOT EXISTS failures (
    run_id VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    error VARCHAR
);

-- One row for an image batch and an entrant: how many images the entrant evaluated, and the seconds of its forward
-- passes, including the filter of its defense. All passes have the same batch size; where a batch is not full, each
-- image counts for one row's share of the seconds.
CREATE TABLE IF NOT EXISTS speed (
    run_id VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    defense VARCHAR NOT NULL,
    device VARCHAR NOT NULL,
    threads INTEGER,
    precision VARCHAR,
    images BIGINT NOT NULL,
    seconds DOUBLE NOT NULL
);

-- Part files that have been ingested: each is recorded in the same transaction as its rows.
CREATE TABLE IF NOT EXISTS parts (
    name VARCHAR PRIMARY KEY,
    rows BIGINT,
    ingested_at TIMESTAMPTZ NOT NULL
);

-- One row: the version of this schema.
CREATE TABLE IF NOT EXISTS meta (schema_version INTEGER NOT NULL);
INSERT INTO meta SELECT $schema_version WHERE NOT EXISTS (FROM meta);

-- name: table_schemas
-- Lists the tables of the current database: columns and types in order, columns that cannot be NULL, and the primary
-- key.
WITH keys AS (
    SELECT table_name, constraint_column_names AS key FROM duckdb_constraints()
    WHERE constraint_type = 'PRIMARY KEY' AND database_name = current_database()
)
SELECT table_name, list(column_name ORDER BY column_index) AS columns, list(data_type ORDER BY column_index) AS types,
    list(column_name ORDER BY column_index) FILTER (NOT is_nullable) AS required, any_value(key) AS key
FROM duckdb_columns() LEFT JOIN keys USING (table_name)
WHERE database_name = current_database() AND NOT internal
GROUP BY table_name
ORDER BY table_name;

-- name: add_column
ALTER TABLE <table> ADD COLUMN <column> <type>;
