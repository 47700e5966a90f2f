-- What a submission holds, by the schema of this version: tables that belong to a run, and what their rows are about.
WITH keys AS (
    SELECT table_name, constraint_column_names AS key FROM duckdb_constraints()
    WHERE constraint_type = 'PRIMARY KEY' AND database_name = current_database()
)
SELECT table_name, list(column_name ORDER BY column_index) AS columns, list(data_type ORDER BY column_index) AS types,
    list(column_name ORDER BY column_index) FILTER (NOT is_nullable) AS required, any_value(key) AS key
FROM duckdb_columns() LEFT JOIN keys USING (table_name)
WHERE database_name = current_database() AND NOT internal
GROUP BY table_name
HAVING list_contains(columns, 'run_id') OR table_name IN ('images', 'models')
ORDER BY table_name
