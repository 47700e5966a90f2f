-- The tables of a results database. Names and columns are a contract: other people's scripts use them.

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
    PRIMARY KEY (model, dataset, defense)
);

-- No key: an index over hundreds of millions of rows would not fit into memory. The writer keeps rows unique.
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
ALTER TABLE sensitivity ADD COLUMN IF NOT EXISTS entropy DOUBLE;

-- What predictors say of a condition: expectation and standard deviation of the change of each output, and what that
-- costs in forward and backward passes.
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

-- Of a chunk of images and an entrant: the images that were asked of it, and the seconds of its forward passes, filter of
-- the defense included. Passes have batches of one size; of one that is not full an image counts its row's share.
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

-- Part files that are in the tables already: written in the same transaction as their rows.
CREATE TABLE IF NOT EXISTS parts (
    name VARCHAR PRIMARY KEY,
    rows BIGINT,
    ingested_at TIMESTAMPTZ NOT NULL
);
-- Databases made before this column came are whole without it.
ALTER TABLE parts ADD COLUMN IF NOT EXISTS rows BIGINT;

-- One row: the layout of this file.
CREATE TABLE IF NOT EXISTS meta (schema_version INTEGER NOT NULL);
INSERT INTO meta SELECT $schema_version WHERE NOT EXISTS (FROM meta);
