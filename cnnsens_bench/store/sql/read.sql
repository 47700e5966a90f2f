-- name: source_tables
-- Lists the tables of the database that `read.attach` has attached as `source`.
SELECT table_name FROM duckdb_tables() WHERE database_name = 'source';

-- name: source_columns
SELECT column_name FROM duckdb_columns() WHERE database_name = 'source' AND table_name = $table;

-- name: source_version
SELECT max(schema_version) FROM source.meta;
